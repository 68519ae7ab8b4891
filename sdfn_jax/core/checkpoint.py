"""Checkpoints with Orbax: the latest train state, and the best variables.

`<workdir>/latest/` holds the two newest train states, `<workdir>/best/` the variables with the best validation score
and the previous best: the older one is the fallback if the newer one is damaged. Orbax keeps no checksum, and a flipped
bit restores silently: a checkpoint carries a SHA-256 of its tree, one of its metadata, and one of each of its files.
These alone decide what is damaged; any other error in reading is reported as it is.

A checkpoint takes its name when all of it is on the disk; only then is an older one removed (`files`).

In a run of several processes, which all have the same state, process 0 writes and each reads for itself: Orbax would
synchronise all of them at each call; so it sees each as a single process.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from sdfn_jax.core import backend, files, processes, run_identity
from sdfn_jax.core.errors import UserError

_ARRAYS, _METADATA = "arrays", "metadata"
_METADATA_DIGEST = "metadata_digest"
_FILE_DIGESTS = "sha256.json"  # not in checkpoints of version 0.1
_KEPT = 2


class DamagedCheckpointError(UserError):
    """A checkpoint whose content has changed since it was saved."""


def tree_digest(tree: Any) -> str:
    """Returns the SHA-256 (hex) of a tree of arrays: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(tree).items()):
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def flatten(tree: Any) -> dict[str, Any]:
    """Returns {path: leaf}, with paths such as `params/entire/conv0/kernel`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def save_latest(workdir: str | Path, step: int, state: Any, metadata: dict) -> None:
    """Saves a train state under its step number; keeps the newest of the older ones."""
    _save(Path(workdir) / "latest", step, flatten(state), metadata)


def save_best(workdir: str | Path, step: int, variables: dict, metadata: dict) -> None:
    """Saves variables (`{"params": ..., "batch_stats": ...}`) as the best; keeps the previous best as fallback."""
    _save(Path(workdir) / "best", step, flatten(variables), metadata)


def read_latest(
    workdir: str | Path, like: Any, usable: Callable[[dict], bool] = lambda _: True
) -> tuple[Any, dict] | None:
    """Reads the newest undamaged train state.

    Args:
      workdir: the run's folder.
      like: a state of the same structure; shapes and dtypes must agree.
      usable: whether the run can resume from a state with this metadata; if not, an older one is read.

    Returns:
      (state as NumPy arrays, metadata), or None if nothing was saved.

    Raises:
      UserError: if every saved state is damaged or unusable, or does not fit `like`.
      OSError: if one cannot be read.
    """
    found = _newest(Path(workdir) / "latest", _read, usable)
    if found is None:
        return None
    arrays, metadata = found
    names = flatten(like)
    _check_fit(f"{workdir}/latest/{metadata['step']}", arrays, names)
    structure = jax.tree_util.tree_structure(like)
    return jax.tree_util.tree_unflatten(structure, [arrays[name] for name in names]), metadata


def latest_metadata(workdir: str | Path) -> dict | None:
    """Returns the metadata of the newest train state without reading its arrays; None if nothing was saved.

    Raises:
      UserError: if that of every saved state is damaged.
      OSError: if it cannot be read.
    """
    found = _newest(Path(workdir) / "latest", lambda folder, step: (None, _read_metadata(folder, step)))
    return None if found is None else found[1]


def best_metadata(workdir: str | Path) -> dict | None:
    """Returns the metadata of the best checkpoint without reading its arrays; None if there is none.

    Raises:
      UserError: if it is damaged.
      OSError: if it cannot be read.
    """
    folder = Path(workdir) / "best"
    found = _read_now(folder, lambda folder, step: (None, _read_metadata(folder, step)))
    return None if found is None else found[1]


def read_best(workdir: str | Path) -> tuple[dict, dict]:
    """Reads the best variables of a trained stage.

    Returns:
      ({"params": ..., "batch_stats": ...} as nested dicts of NumPy arrays, metadata). The metadata names the
      checkpoint's `digest`, the stage's `config`, and the stage's own entries (`normalisation` of an LRG).

    Raises:
      UserError: if there is no trained checkpoint, or it is damaged.
      OSError: if it cannot be read.
    """
    folder = Path(workdir) / "best"
    found = _read_now(folder, _read)
    if found is None:
        raise UserError(
            f"{workdir} holds no trained checkpoint (no {folder}). Train the stage first: "
            "python -m sdfn_jax.main --config=configs/<stage>.py"
        )
    arrays, metadata = found
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        place = variables
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = array
    return variables, metadata


def has_best_since(workdir: str | Path, epoch: int) -> bool:
    """Returns whether there is an undamaged best from this epoch or later; epoch 0 means that none is needed.

    A later one was saved before the run fell back; training will reach it again.
    """
    if epoch == 0:
        return True
    folder = Path(workdir) / "best"
    for step in reversed(_steps(folder)):
        try:
            if _read(folder, step)[1].get("epoch", 0) >= epoch:
                return True
        except DamagedCheckpointError as error:
            logging.warning("%s", error)
    return False


def _save(folder: Path, step: int, arrays: dict[str, Any], metadata: dict) -> None:
    if not processes.is_first():
        return
    arrays = jax.tree.map(np.asarray, jax.device_get(arrays))
    metadata = {**metadata, "step": step, "digest": tree_digest(arrays)}
    # Fails now, not at the next start, if something cannot be stored.
    metadata[_METADATA_DIGEST] = _metadata_digest(metadata)
    with files.folder_appears_when_complete(folder.absolute() / str(step)) as unfinished:
        unfinished.mkdir()
        _save_arrays(unfinished / _ARRAYS, arrays, folder / str(step))
        (unfinished / _METADATA).mkdir()
        (unfinished / _METADATA / _METADATA).write_text(json.dumps(metadata))
        (unfinished / _FILE_DIGESTS).write_text(json.dumps(_file_digests(unfinished)))
    _keep_newest(folder, step)


def _save_arrays(path: Path, arrays: dict[str, np.ndarray], shown: Path) -> None:
    try:
        with _without_tracebacks(), _checkpointer() as checkpointer:
            checkpointer.save(path, args=ocp.args.PyTreeSave(arrays))
    except (MemoryError, OSError):
        raise
    except Exception as error:  # tensorstore's, of a full disk or a broken one
        text = str(error)
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EACCES):
            if os.strerror(number) in text:
                raise OSError(number, os.strerror(number), str(shown)) from error
        raise


def _keep_newest(folder: Path, step: int) -> None:
    """Removes steps that a newly saved one makes superfluous, and half-written ones."""
    older = [there for there in _steps(folder) if there <= step]
    kept = {str(there) for there in older[-_KEPT:]}
    for path in folder.iterdir():
        # A later step was saved before the run fell back: after a kill, or because the step is damaged.
        if (path.name.isdigit() and path.name not in kept) or ".orbax-checkpoint-tmp" in path.name:
            files.remove_folder(path)


def _checkpointer() -> ocp.Checkpointer:
    index = processes.index()
    alone = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


@contextlib.contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Keeps Orbax's threads from logging what they raise, with a traceback: the caller gets it, and reports it once."""

    def keep(record: logging.LogRecord) -> bool:
        return "_SignalingThread" not in record.getMessage()

    logger = absl.logging.get_absl_logger()
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _steps(folder: Path) -> list[int]:
    """Returns the complete steps of a folder, without those that a kill or power cut left empty or incomplete."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.name.isdigit())
    return sorted(int(path.name) for path in found if (path / _ARRAYS).is_dir() and _is_written(path))


def _is_written(path: Path) -> bool:
    try:
        return (path / _METADATA / _METADATA).stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False


def _newest(
    folder: Path, read: Callable[[Path, int], tuple[Any, dict]], usable: Callable[[dict], bool] = lambda _: True
) -> tuple[Any, dict] | None:
    """Returns the result of `read` for the newest undamaged checkpoint; None if there is none."""
    passed: dict[int, str] = {}
    while steps := [step for step in _steps(folder) if step not in passed]:
        step, before = steps[-1], _identity(folder / str(steps[-1]))
        try:
            found = read(folder, step)
            if usable(found[1]):
                return found
            passed[step] = f"{folder / str(step)}: the best checkpoint that belongs to it is damaged or gone."
        except (DamagedCheckpointError, FileNotFoundError) as error:
            if _identity(folder / str(step)) != before:
                continue  # another process has saved in the meantime: this step is gone or replaced
            if not isinstance(error, DamagedCheckpointError):
                raise
            passed[step] = str(error)
        logging.warning("%s Going back to the checkpoint before it.", passed[step])
    if passed:
        raise DamagedCheckpointError(
            f"{folder}: no checkpoint in it can be used. {' '.join(passed.values())} Restore one from a copy; or "
            f"train in another folder (--config.workdir=...), or again in this one after moving {folder.parent} away."
        )
    return None


def _read_now(folder: Path, read: Callable[[Path, int], tuple[Any, dict]]) -> tuple[Any, dict] | None:
    """Returns the result of `read` for the newest checkpoint, damaged or not; None if there is none."""
    while steps := _steps(folder):
        path = folder / str(steps[-1])
        before = _identity(path)
        try:
            return read(folder, steps[-1])
        except (DamagedCheckpointError, FileNotFoundError) as error:
            if _identity(path) != before:
                continue
            if not isinstance(error, DamagedCheckpointError):
                raise
            raise DamagedCheckpointError(f"{error} Restore it from a copy.{_before_it(folder, steps)}") from error
    return None


def _identity(path: Path) -> int | None:
    """Distinguishes a folder from one that replaces it; None if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _before_it(folder: Path, steps: list[int]) -> str:
    if len(steps) < 2:
        return ""
    return f" The previous best is still there: {folder / str(steps[-2])} takes its place if you move it away."


def _read_metadata(folder: Path, step: int) -> dict:
    file = folder / str(step) / _METADATA / _METADATA
    with files.naming(file):
        content = file.read_bytes()
    try:
        metadata = json.loads(content)
        saved = metadata.pop(_METADATA_DIGEST)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(
            f"{folder / str(step)} is damaged: its metadata cannot be read ({type(error).__name__}: {error})."
        ) from error
    if _metadata_digest(metadata) != saved:
        raise DamagedCheckpointError(f"{folder / str(step)} is damaged: its metadata changed after it was saved.")
    return run_identity.under_present_names(metadata)


def _metadata_digest(metadata: dict) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _read(folder: Path, step: int) -> tuple[dict[str, np.ndarray], dict]:
    backend.start()  # Orbax needs it, and its own error would be taken for damage
    metadata, path = _read_metadata(folder, step), folder / str(step)
    try:
        with _without_tracebacks(), _checkpointer() as checkpointer:
            # NumPy arrays, as saved. Requesting that explicitly doubles Orbax's time.
            arrays = checkpointer.restore((path / _ARRAYS).absolute(), args=ocp.args.PyTreeRestore())
    except MemoryError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:200]  # tensorstore adds its whole configuration
        if changed := _changed_files(path):
            raise DamagedCheckpointError(f"{path} is damaged: {changed} ({reason}).") from error
        raise UserError(f"{path} cannot be read, though it is not damaged ({reason}).") from error
    found, saved = tree_digest(arrays), metadata["digest"]
    if found != saved:
        raise DamagedCheckpointError(f"{path} is damaged: its content has SHA-256 {found}, but {saved} was saved.")
    return arrays, metadata


def _file_digests(path: Path) -> dict[str, str]:
    """Returns {name: SHA-256} of the files that hold a checkpoint's arrays.

    Raises:
      OSError: naming a file that cannot be read.
    """
    found = sorted(file for file in (path / _ARRAYS).rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): files.file_digest(file) for file in found}


def _changed_files(path: Path) -> str:
    """Returns which files of a checkpoint have changed since it was saved, as a phrase; empty if none.

    A checkpoint of version 0.1 has no digests of its files: if they can be read but Orbax cannot restore them, they
    count as changed.
    """
    there = _file_digests(path)
    try:
        saved = json.loads((path / _FILE_DIGESTS).read_bytes())
        changed = [name for name in sorted({*saved, *there}) if saved.get(name) != there.get(name)]
    except FileNotFoundError:
        return "its content cannot be interpreted"
    except (ValueError, AttributeError, TypeError):
        changed = [_FILE_DIGESTS]
    return f"{', '.join(changed[:3])} changed or missing" if changed else ""


def _check_fit(where: str, arrays: dict[str, np.ndarray], like: dict[str, Any]) -> None:
    wrong = [
        f"{name}: {_describe(arrays.get(name))} instead of {_describe(like.get(name))}"
        for name in sorted({*arrays, *like})
        if _describe(arrays.get(name)) != _describe(like.get(name))
    ]
    if wrong:
        raise UserError(
            f"{where} was saved by another network, recipe or version: {'; '.join(wrong[:5])}. Give another folder "
            "(--config.workdir=...)."
        )


def _describe(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
