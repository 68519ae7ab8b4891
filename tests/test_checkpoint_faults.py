"""What keeps a checkpoint from being read or saved is said in its own words: only digests decide about damage."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from sdfn_jax.core import checkpoint
from sdfn_jax.core.errors import UserError, describe

TREE = {"params": {"kernel": np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)}, "batch_stats": {}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("saved") / "run"
    checkpoint.save_best(workdir, 1, TREE, {})
    checkpoint.save_latest(workdir, 1, TREE, {})
    return workdir


READERS = [checkpoint.read_best, lambda workdir: checkpoint.read_latest(workdir, TREE)]


def said_of(error) -> str:
    """What the user reads; it is no talk of damage, and no advice to delete."""
    said = describe(error)
    assert said is not None, "a traceback"
    assert "damaged" not in said and "delete" not in said.lower() and "train" not in said
    return said


def fail_with(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EACCES, "change its permissions"), (errno.EIO, "try again"), (errno.EMFILE, "ulimit")]
)
class TestReading:
    def test_metadata_that_the_system_does_not_give(self, run, monkeypatch, read, number, advice):
        monkeypatch.setattr(Path, "read_bytes", fail_with(OSError(number, os.strerror(number))))
        with pytest.raises(OSError) as caught:
            read(run)
        said = said_of(caught.value)
        assert said.startswith(f"{run}/") and f"/1/metadata/metadata: {os.strerror(number)}" in said
        assert advice in said

    def test_arrays_that_the_system_does_not_give(self, run, monkeypatch, read, number, advice):
        """tensorstore, which reads them, raises errors of its own: what the system says of the files is asked again."""
        monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", fail_with(ValueError("DATA_LOSS: cannot read")))
        opened = Path.open

        def refuse(path, *arguments, **more):
            if "arrays" in path.parts:
                raise OSError(number, os.strerror(number), str(path))
            return opened(path, *arguments, **more)

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(OSError) as caught:
            read(run)
        said = said_of(caught.value)
        assert f"{run}/" in said and "/arrays/" in said and os.strerror(number) in said
        assert advice in said


@pytest.mark.parametrize("read", READERS)
def test_too_little_memory_is_no_damage(run, monkeypatch, read):
    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", fail_with(MemoryError("Unable to allocate 8 TiB")))
    with pytest.raises(MemoryError) as caught:
        read(run)
    assert said_of(caught.value).startswith("not enough memory: Unable to allocate 8 TiB")


@pytest.mark.parametrize("read", READERS)
def test_an_error_of_the_reader_with_sound_files_is_no_damage(run, monkeypatch, read):
    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", fail_with(ValueError("RESOURCE_EXHAUSTED: x\ny")))
    with pytest.raises(UserError) as caught:
        read(run)
    assert not isinstance(caught.value, checkpoint.DamagedCheckpointError)
    assert "cannot be read, though it is not damaged (ValueError: RESOURCE_EXHAUSTED" in str(caught.value)


@pytest.mark.parametrize("platforms", ["gpu", "CPU"])
def test_a_device_that_is_not_there_is_no_damage(run, platforms):
    program = f"""
        from sdfn_jax.core import checkpoint, errors
        errors.run_command(lambda: checkpoint.read_best({str(run)!r}))
    """
    done = python(program, JAX_PLATFORMS=platforms, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert f"error: JAX_PLATFORMS={platforms}: jax finds no such device here" in done.stderr
    assert "damaged" not in done.stderr and "delete" not in done.stderr.lower() and "Traceback" not in done.stderr


SAVING = """
    import sys
    import numpy as np
    from sdfn_jax.core import checkpoint

    for step in range(1, 31):
        tree = {"params": {"kernel": np.full((200, 200), step, np.float32)}}
        checkpoint.save_latest(sys.argv[1], step, tree, {})
        checkpoint.save_best(sys.argv[1], step, tree, {})
        print(step, flush=True)
"""


def test_a_run_is_read_while_another_process_saves_into_it(tmp_path, caplog):
    like = {"params": {"kernel": np.zeros((200, 200), np.float32)}}
    command = [sys.executable, "-c", textwrap.dedent(SAVING), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as saving:
        assert saving.stdout.readline() == "1\n"
        read = 0
        while saving.poll() is None or not read:
            best, metadata = checkpoint.read_best(tmp_path)
            assert (best["params"]["kernel"] == metadata["step"]).all()
            latest, metadata = checkpoint.read_latest(tmp_path, like)
            assert (latest["params"]["kernel"] == metadata["step"]).all()
            read += 1
    assert saving.returncode == 0
    assert not caplog.records  # no step was taken for damaged


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("RLIMIT_FSIZE, (100_000, 100_000)", "File too large; raise the limit on file size"),
        ("RLIMIT_NOFILE, (open_files + 4, open_files + 4)", "Too many open files; raise the limit on open files"),
    ],
)
def test_what_keeps_a_checkpoint_from_being_saved_is_a_sentence_and_the_one_before_stays(tmp_path, limit, said):
    """tensorstore raises a ValueError for a full disk as for these, and Orbax's threads log a traceback of it."""
    program = f"""
        import os, resource, signal
        import numpy as np
        from sdfn_jax.core import checkpoint, errors

        tree = {{"params": {{"kernel": np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)}}}}

        def save():
            checkpoint.save_best({str(tmp_path)!r}, 1, tree, {{}})
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            open_files = len(os.listdir("/dev/fd")) - 1
            resource.setrlimit(resource.{limit})
            checkpoint.save_best({str(tmp_path)!r}, 2, tree, {{}})

        errors.run_command(save)
    """
    done = python(program)
    assert done.returncode == 2
    assert f"error: {tmp_path / 'best' / '2'}: {said}" in done.stderr
    assert "Traceback" not in done.stderr.split("Exception ignored")[0]
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["1"]
    assert checkpoint.read_best(tmp_path)[1]["step"] == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_one_of_the_checkpoint_that_was_to_be(tmp_path, monkeypatch, number):
    text = f"RESOURCE_EXHAUSTED: Error writing: Failed to write 99 bytes to file 14: {os.strerror(number)}"
    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "save", fail_with(ValueError(text)))
    with pytest.raises(OSError) as caught:
        checkpoint.save_best(tmp_path, 1, TREE, {})
    assert said_of(caught.value).startswith(f"{tmp_path}/best/1: {os.strerror(number)}")
    assert not list((tmp_path / "best").iterdir())


def python(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
