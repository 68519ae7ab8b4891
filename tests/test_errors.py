"""What a user sees after a mistake, a system error, and Ctrl-C."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from importlib import metadata

import pytest

from sdfn_jax.core.errors import UserError, run_command
from sdfn_jax.core.extras import install_command
from sdfn_jax.core.terminal import printable

AGAIN = "Once that is fixed, the same command resumes from here."


def run(command, **options):
    """Returns the result of a command of a few lines, in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.run(program(command), **pipes | options)


def program(command):
    lines = "from sdfn_jax.core import errors\n" + textwrap.dedent(command)
    return [sys.executable, "-c", lines + "\nerrors.run_as_process(command, 'the same command resumes from here')"]


def test_a_users_mistake_is_a_message_and_status_2(capsys):
    def command():
        raise UserError("films/a.png: cannot be decoded")

    with pytest.raises(SystemExit) as e:
        run_command(command)
    assert e.value.code == 2
    captured = capsys.readouterr()
    assert captured.err == "\nerror: films/a.png: cannot be decoded\n"
    assert captured.out == ""


def test_our_own_mistake_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)


def test_a_command_that_ends_well_says_nothing_more(capsys):
    run_command(lambda: print("done"))
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "runs/a.csv"), "runs/a.csv: Permission denied; change its"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.csv"),
            "a.csv: No space left on device; free some space there",
        ),
        (OSError(errno.EMFILE, "Too many open files", "a.csv"), "a.csv: Too many open files; raise the limit"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/x"), "/proc/x: No such file or directory"),
        (OSError(errno.EROFS, "Read-only file system", ".part", None, "a.csv"), "a.csv: Read-only file system"),
        (ConnectionError("the other end hung up"), "the other end hung up"),
        (MemoryError("Unable to allocate 8 TiB"), "not enough memory: Unable to allocate 8 TiB. Close other programs"),
        (MemoryError(), "not enough memory: none is left"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nstack"), "not enough memory: RESOURCE_EXHAUSTED: Out of mem"),
    ],
)
def test_what_the_system_does_not_allow_is_a_message_that_names_it(capsys, error, said):
    def command():
        raise error

    with pytest.raises(SystemExit) as e:
        run_command(command, "the same command resumes from here")
    assert e.value.code == 2
    captured = capsys.readouterr().err
    assert f"\nerror: {said}" in captured
    assert captured.endswith(f"{AGAIN}\n")


def test_names_in_a_message_do_nothing_to_a_terminal(capsys):
    def command():
        raise UserError("\x1b[2Jfilm\r.png: bad\n  * and a second line")

    with pytest.raises(SystemExit):
        run_command(command)
    assert capsys.readouterr().err == "\nerror: \\x1b[2Jfilm\\r.png: bad\n  * and a second line\n"
    assert printable("two\nlines") == "two\\nlines"


def test_a_process_without_room_for_more_files_says_so():
    result = run(
        """
        import resource
        def command():
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
            open("/dev/null")
        """
    )
    assert result.returncode == 2
    assert result.stderr == (
        "\nerror: /dev/null: Too many open files; raise the limit on open files (ulimit -n 4096), or close other "
        f"programs. {AGAIN}\n"
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_of_any_encoding_takes_any_name(encoding):
    result = run(
        """
        import sys
        def command():
            print("снимки lat\\udce9.png")
            print("снимки lat\\udce9.png", file=sys.stderr)
        """,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        text=False,
    )
    name = "снимки" if encoding == "utf-8" else r"\u0441\u043d\u0438\u043c\u043a\u0438"
    assert result.returncode == 0
    for shown in (result.stdout, result.stderr):
        assert shown.decode("utf-8") == f"{name} lat\\udce9.png\n"


def test_a_reader_who_leaves_does_not_cut_the_work_short(tmp_path):
    path = tmp_path / "work"
    command = program(
        f"""
        import sys
        def command():
            for number in range(100_000):
                print("a line of a long table")
            open({str(path)!r}, "w").close()
            sys.exit(1)
        """
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1  # the command's own
    assert path.exists()
    assert said == "\nthe reader of standard output left before its end (| head?); the work itself was not cut short\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_output_on_a_full_disk_is_said():
    with open("/dev/full", "w") as full:
        result = run("def command():\n    print('done')", stdout=full)
    assert result.returncode == 2
    assert result.stderr.startswith("\nerror: standard output: No space left on device; free some space there")


def test_with_standard_output_closed_no_file_takes_its_place(tmp_path):
    path = tmp_path / "work"
    command = program(
        f"""
        import os
        def command():
            with open({str(path)!r}, "w") as file:
                file.write("a table")
                os.write(1, b"what native code prints")
            print("done")
        """
    )
    subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], check=True)
    assert path.read_text() == "a table"


def stop(command, times=1, number=signal.SIGINT):
    """Sends Ctrl-C, or another signal, to a command that says that it is ready; returns (its status, what it said)."""
    with subprocess.Popen(
        program(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        for _ in range(times - 1):
            assert process.stdout.readline() == "heard\n"
            process.send_signal(number)
        said = process.stderr.read()
    return process.returncode, said


STOPPED = (130, "\nstopped; the same command resumes from here\n")


def test_ctrl_c_is_a_sentence_and_status_130():
    command = """
        import threading
        def command():
            print("ready", flush=True)
            threading.Event().wait()
        """
    assert stop(command) == STOPPED


WAITING = {
    "in Python": "threading.Event().wait()",
    "in native code": "while True: ctypes.CDLL(None).sleep(60)",
    "in work that saves": """
            with stops.StopWish() as wish:
                while not wish.came:
                    time.sleep(0.01)
            raise stops.Stopped("stopped; the same command resumes from here")
""",
}


@pytest.mark.parametrize("where", WAITING)
def test_sigterm_is_a_sentence_and_status_143(where):
    command = f"""
        import ctypes, threading, time
        from sdfn_jax.core import stops, terminal
        terminal._PATIENCE = 0.2
        def command():
            print("ready", flush=True)
            {WAITING[where].strip()}
        """
    assert stop(command, number=signal.SIGTERM) == (143, STOPPED[1])


def test_an_interrupt_that_says_something_is_heard(capsys):
    def command():
        raise KeyboardInterrupt("stopped after epoch 3")

    with pytest.raises(SystemExit) as e:
        run_command(command)
    assert e.value.code == 130
    assert capsys.readouterr().err == "\nstopped after epoch 3\n"


def test_ctrl_c_in_a_callback_for_garbage_is_not_lost():
    """As jax has one: what is raised in it goes nowhere."""
    command = """
        import gc, threading, time
        first = [True]
        def callback(phase, info):
            if phase == "start" and first:
                first.clear()
                print("ready", flush=True)
                time.sleep(60)
        def command():
            gc.callbacks.append(callback)
            gc.collect()
            threading.Event().wait()
        """
    assert stop(command) == STOPPED


def test_ctrl_c_ends_what_does_not_return_to_python(monkeypatch):
    """As a compiler may not for a minute, and whoever passes over every exception."""
    command = """
        from sdfn_jax.core import terminal
        import ctypes
        terminal._PATIENCE = 0.2
        def command():
            print("ready", flush=True)
            libc = ctypes.CDLL(None)
            while True:
                libc.sleep(60)
        """
    assert stop(command) == STOPPED
    deaf = """
        from sdfn_jax.core import terminal
        import threading
        terminal._PATIENCE = 0.2
        def command():
            print("ready", flush=True)
            while True:
                try:
                    threading.Event().wait()
                except BaseException:
                    pass
        """
    assert stop(deaf) == STOPPED


def test_who_has_a_handler_decides_about_the_first_ctrl_c_only():
    command = """
        from sdfn_jax.core import terminal
        import signal, threading
        terminal._PATIENCE, terminal._SAME = 0.2, 0
        def command():
            signal.signal(signal.SIGINT, lambda *_: print("heard", flush=True))
            print("ready", flush=True)
            while True:
                threading.Event().wait()
        """
    assert stop(command, times=2) == STOPPED


@pytest.mark.parametrize(
    ("installed", "command"), [(True, "pip install 'sdfn_jax[viewer]'"), (False, "pip install -e '.[viewer]'")]
)
def test_the_command_for_an_extra_fits_an_installed_package_and_a_bare_checkout(monkeypatch, installed, command):
    def distribution(name):
        assert name == "sdfn_jax"
        if not installed:
            raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    assert install_command("viewer") == command
