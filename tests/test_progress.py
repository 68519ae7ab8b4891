"""What long work says of itself in a log file."""

import time

import pytest

from sdfn_jax.core import progress


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "_LOG_INTERVAL", 0.5)


def test_work_is_named_counted_and_timed(capsys):
    seen = []
    for film in progress.bar(range(5), what="prepare jsrt", unit="film"):
        time.sleep(0.15)
        seen.append(film)
    assert seen == [0, 1, 2, 3, 4]
    captured = capsys.readouterr()
    assert captured.out == ""  # results may be piped on
    assert "prepare jsrt" in captured.err
    assert "5/5" in captured.err
    assert "films/s" in captured.err


def test_a_resumed_bar_counts_what_was_done(capsys):
    with progress.bar(what="train lrg", unit="step", total=10, initial=7) as bar:
        time.sleep(0.6)
        bar.update(2)
    assert "9/10" in capsys.readouterr().err


def test_a_log_file_is_not_flooded(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    for _ in progress.bar(range(300), what="lung boxes", unit="image"):
        now += 0.003
    assert capsys.readouterr().err.count("lung boxes") == 2  # after half a second and at the end


def test_the_first_step_which_compiles_is_no_measure_of_the_others(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.bar(what="train lrg", unit="step", total=100) as bar:
        for seconds in (300, 0.25, 0.25):
            now += seconds
            bar.update()
    assert capsys.readouterr().err.splitlines() == [
        "train lrg: 1/100 steps",
        "train lrg: 3/100 steps, 4.0 steps/s, 0:24 left",
    ]


def test_short_work_leaves_the_screen_alone(capsys):
    list(progress.bar(range(5), what="validate", unit="image"))
    assert capsys.readouterr().err.strip() == ""


def test_a_log_holds_plain_lines_alone(capsys):
    with progress.bar(what="predict", unit="film", total=2) as bar:
        progress.note(bar, "not read: 1.png")
        time.sleep(0.6)
        bar.update()
        progress.note(bar, "not read: 2.png")
        bar.write("  epoch 1/1")
        bar.update()
    shown = capsys.readouterr()
    first, line, second, last = shown.err.splitlines()
    assert (first, second) == ("not read: 1.png", "not read: 2.png")
    assert line == "predict: 1/2 films"
    assert last.startswith("predict: 2/2 films, ") and "left" not in last
    assert shown.out == "  epoch 1/1\n"
    assert not {"\r", "\x1b", "%", "|"} & set(shown.err)


def test_lines_become_rarer_as_the_work_goes_on(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.bar(what="train entire", unit="step", total=200_000) as bar:
        for _ in range(100_000):
            now += 1
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert 100 < len(lines) < 250
    assert lines[-1] == "train entire: 100,000/200,000 steps, 1.0 steps/s, 27:46:40 left"


def test_what_leaves_the_screen_leaves_no_last_line(capsys):
    with progress.bar(what="validate", unit="image", total=3, stays=False) as bar:
        time.sleep(0.6)
        bar.update(2)
        bar.update()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_note_on_a_terminal_has_a_line_of_its_own_before_and_after_the_bar_shows(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SCREEN_INTERVAL", 0.5)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with progress.bar(what="predict", unit="film", total=2) as bar:
        progress.note(bar, "not read: 1.png")
        assert capsys.readouterr().err == "not read: 1.png\n"
        time.sleep(0.6)
        bar.update()
        progress.note(bar, "not read: 2.png")
    shown = capsys.readouterr().err
    assert "\rnot read: 2.png\n" in shown.replace(" ", "").replace("notread:", "not read: ")
    assert shown.endswith("\n")
