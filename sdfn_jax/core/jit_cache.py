"""Compiled programs, kept from one process to the next in jax's persistent compilation cache.

jax's key holds the program, the versions of jaxlib and of the device's software, XLA's flags, the devices, and of a CPU
the instruction sets: where several types share a home folder, each finds only what was compiled for its own. (Tried on
jax 0.10.2 and 0.12.0: the key changes with the instruction sets that XLA may use. A program of another type would be
loaded with no more than a message, so all rests on the key.)
"""

import contextlib
import os
import sys
import warnings
from pathlib import Path

import jax

from sdfn_jax.core import files
from sdfn_jax.core.errors import UserError

# Some hundred programs of full-size networks; beyond it jax deletes those that were used longest ago.
_MAX_BYTES = 2**30
_UNREADABLE = "Error reading persistent compilation cache entry"  # how jax's warning begins


def use_cache() -> None:
    """Has this process keep what it compiles, and take what an earlier one kept; for commands, before they compute.

    The programs lie in `compiled` of the cache folder (`files.cache_folder`). Where jax has been told a folder of its
    own, by the environment variable JAX_COMPILATION_CACHE_DIR or in its config, that one is used under the settings it
    came with. A folder that cannot be written is said on standard error, and nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        folder = _private_folder()
    except (OSError, UserError) as error:
        other = (
            "" if isinstance(error, UserError) else f"; {files.CACHE_VARIABLE} in the environment names another folder"
        )
        print(
            f"compiled programs are not kept, and will be compiled again by the next command: {error}{other}",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    # Everything, down to single operations: reading one back takes a millisecond, compiling it twenty.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    _replace_damaged_entries(folder)


def _replace_damaged_entries(folder: Path) -> None:
    """Has a program that cannot be read removed before it is compiled again: jax itself never writes over an entry.

    jax tells of it by a warning, which does not name the entry; but it has just noted the time of reading next to it.
    """
    shown = warnings.showwarning

    def show(message: Warning | str, *where, **more) -> None:
        if not str(message).startswith(_UNREADABLE):
            shown(message, *where, **more)
            return
        with contextlib.suppress(OSError, ValueError):  # another process may have removed it
            read_last = max(folder.glob("*-atime"), key=lambda path: path.stat().st_mtime_ns)
            read_last.with_name(read_last.name.removesuffix("-atime") + "-cache").unlink()
        print(f"a compiled program in {folder} was damaged; it is compiled again", file=sys.stderr)

    warnings.showwarning = show
    warnings.filterwarnings("always", message=_UNREADABLE)


def _private_folder() -> Path:
    """Makes the folder, for its owner alone: whoever can write to it can have others run their programs."""
    folder = files.cache_folder() / "compiled"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written")
    return folder
