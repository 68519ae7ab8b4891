"""`--config`, of the commands that take one: a file that may be anywhere; mistakes in it are a sentence."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from sdfn_jax.core.errors import UserError

_NAME = "config"


def define(description: str) -> flags.FlagHolder:
    """Defines the flag; parse it with `parse`."""
    return config_flags.DEFINE_config_file(_NAME, None, description, lock_config=True)


def parse(arguments: Sequence[str]) -> list[str]:
    """Parses a command line, as absl's `app.run` asks for it.

    Returns:
      the program's name and what is no flag.

    Raises:
      UserError: for a flag that is not there or has a value of another kind, a setting that the config lacks, or a
        config that cannot be read.
    """
    with _neighbours_found(arguments):
        try:
            rest = flags.FLAGS(arguments)
        except flags.Error as error:
            raise UserError(f"{_last_line(error)} (--help lists the flags)") from error
        except ImportError as error:
            raise UserError(
                f"--{_NAME}: it imports {error.name}, which is not there. The files of configs/ need each other: keep "
                "them together, in a folder of that name."
            ) from error
        except SyntaxError as error:
            raise UserError(f"--{_NAME}: not Python: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # ml_collections raises bare Python errors for --config.KEY=VALUE, with the key in quotes within quotes.
            message = _last_line(error).replace("\\", "").replace("'", "").replace("nDid", ". Did")
            raise UserError(f"no such setting in --{_NAME}: {message}") from error
    config = flags.FLAGS[_NAME].value
    if config is not None:
        try:
            config.stage  # noqa: B018 - a file that could not be loaded says so only when it is looked into
        except OSError as error:
            raise UserError(
                f"--{_NAME}: run from the repository's folder, or give the file's whole path. {error}"
            ) from error
        except AttributeError as error:
            raise UserError(f"--{_NAME}: it names no stage; start from one of the files in configs/") from error
    return rest


@contextlib.contextmanager
def _neighbours_found(arguments: Sequence[str]) -> Iterator[None]:
    """Has a config find those that it imports as `configs.NAME` next to it, whatever folder the command runs in."""
    folder = _config_folder(arguments)
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _config_folder(arguments: Sequence[str]) -> Path | None:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, given, value = argument.partition("=")
        if flag in (f"-{_NAME}", f"--{_NAME}"):
            path, _, _ = (value if given else following).partition(":")
            return Path(path).resolve().parent.parent
    return None


def _last_line(error: Exception) -> str:
    """Returns what is wrong; what comes before it may be a whole traceback of the config."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
