"""What long work says of itself in a log file."""

import time

from sdfn_jax import progress


def test_work_is_named_counted_and_timed(capsys):
    assert list(progress.bar(range(5), what="prepare jsrt", unit="film")) == [0, 1, 2, 3, 4]
    captured = capsys.readouterr()
    assert captured.out == ""  # results may be piped on
    assert "prepare jsrt" in captured.err
    assert "5/5" in captured.err
    assert "films/s" in captured.err


def test_a_resumed_bar_counts_what_was_done(capsys):
    with progress.bar(what="train lrg", unit="step", total=10, initial=7) as bar:
        bar.update(2)
    assert "9/10" in capsys.readouterr().err


def test_a_log_file_is_not_flooded(capsys):
    for _ in progress.bar(range(300), what="lung boxes", unit="image"):
        time.sleep(0.002)
    assert capsys.readouterr().err.count("lung boxes") <= 3  # not a line every 0.1 seconds
