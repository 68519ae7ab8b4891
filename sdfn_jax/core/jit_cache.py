"""Compiled programs, kept between processes in JAX's persistent compilation cache.

JAX's key covers the program, the versions of jaxlib and of the device's software, XLA's flags, the devices, and the
instruction sets of a CPU: machines of different types that share a home folder each find only their own programs.
(Tested with JAX 0.10.2 and 0.12.0: the key changes with the instruction sets that XLA may use. A program of another
type would be loaded with only a message, so everything depends on the key.)
"""

import contextlib
import os
import sys
import warnings
from pathlib import Path

import jax

from sdfn_jax.core import files
from sdfn_jax.core.errors import UserError

# A hundred or so programs of full-size networks; above this, JAX deletes the least recently used.
_MAX_BYTES = 2**30
_UNREADABLE = "Error reading persistent compilation cache entry"  # the beginning of JAX's warning


def use_cache() -> None:
    """Makes this process store the programs that it compiles and load stored ones; call it before computing.

    The programs are in `compiled` in the cache folder (`files.cache_folder`). If JAX has a folder of its own, from the
    environment variable JAX_COMPILATION_CACHE_DIR or its config, that one is used with JAX's settings. If the folder
    cannot be written, standard error says so and nothing is stored.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        folder = _private_folder()
    except (OSError, UserError) as error:
        other = (
            ""
            if isinstance(error, UserError)
            else f"; the environment variable {files.CACHE_VARIABLE} names another folder"
        )
        print(
            f"compiled programs are not kept; the next command will compile them again: {error}{other}",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    # Store even single operations: loading one takes a millisecond, compiling it twenty.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    _replace_damaged_entries(folder)


def _replace_damaged_entries(folder: Path) -> None:
    """Removes a program that cannot be read, so that it is compiled and stored again: JAX never overwrites an entry.

    JAX's warning does not name the entry; but JAX has just written the time of reading next to it.
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
    """Makes the folder, readable by its owner alone: whoever can write to it decides what others execute."""
    folder = files.cache_folder() / "compiled"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written")
    return folder
