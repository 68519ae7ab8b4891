"""Checkpoints with Orbax: the latest train state, and the best variables.

`<workdir>/latest/` holds the two newest train states (the older one is the fallback when the newer is damaged);
`<workdir>/best/` the variables with the best validation score. Orbax keeps no checksum, and a flipped bit restores
silently: both carry a SHA-256 of the tree and one of their metadata, and what does not match is refused.

Of several processes, which all hold the same state, the first writes and each reads for itself: Orbax, which would have
all of them meet at each call, takes each for a process by itself.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from sdfn_jax import processes
from sdfn_jax.errors import UserError

_ARRAYS, _METADATA = "arrays", "metadata"
_METADATA_DIGEST = "metadata_digest"


class DamagedCheckpointError(UserError):
    """A checkpoint whose content is not what was saved."""


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
    """Saves a train state under its step number; of the older ones the newest stays."""
    _save(Path(workdir) / "latest", step, flatten(state), metadata, keep=2)


def save_best(workdir: str | Path, step: int, variables: dict, metadata: dict) -> None:
    """Saves variables (`{"params": ..., "batch_stats": ...}`) as the best, in place of an earlier best."""
    _save(Path(workdir) / "best", step, flatten(variables), metadata, keep=1)


def read_latest(workdir: str | Path, like: Any) -> tuple[Any, dict] | None:
    """Reads the newest undamaged train state.

    Args:
      workdir: the run's folder.
      like: a state of the same structure; shapes and dtypes must agree.

    Returns:
      (state as NumPy arrays, metadata), or None where nothing was saved.

    Raises:
      UserError: where every saved state is damaged or none fits `like`.
    """
    found = _newest_undamaged(workdir, _read)
    if found is None:
        return None
    arrays, metadata = found
    names = flatten(like)
    _check_fit(f"{workdir}/latest/{metadata['step']}", arrays, names)
    structure = jax.tree_util.tree_structure(like)
    return jax.tree_util.tree_unflatten(structure, [arrays[name] for name in names]), metadata


def latest_metadata(workdir: str | Path) -> dict | None:
    """Returns the metadata of the newest train state without reading its arrays; None where nothing was saved.

    Raises:
      UserError: where that of every saved state is damaged.
    """
    return _newest_undamaged(workdir, _read_metadata)


def best_metadata(workdir: str | Path) -> dict | None:
    """Returns the metadata of the best checkpoint without reading its arrays; None where there is none.

    Raises:
      UserError: where it is damaged.
    """
    folder = Path(workdir) / "best"
    steps = _steps(folder)
    return _read_metadata(folder, steps[-1]) if steps else None


def read_best(workdir: str | Path) -> tuple[dict, dict]:
    """Reads the best variables of a trained stage.

    Returns:
      ({"params": ..., "batch_stats": ...} as nested dicts of NumPy arrays, metadata). The metadata names the
      checkpoint's `digest`, the stage's `config`, and what the stage adds (an LRG its `normalisation`).

    Raises:
      UserError: where there is no trained checkpoint, or it is damaged.
    """
    folder = Path(workdir) / "best"
    steps = _steps(folder)
    if not steps:
        raise UserError(
            f"{workdir} holds no trained checkpoint (no {folder}). Train the stage first: "
            "python -m sdfn_jax.main --config=configs/<stage>.py"
        )
    try:
        arrays, metadata = _read(folder, steps[-1])
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(
            f"{error} Copy it anew from where it is whole, or train the stage again."
        ) from error
    variables = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        place = variables
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = array
    return variables, metadata


def _save(folder: Path, step: int, arrays: dict[str, Any], metadata: dict, keep: int) -> None:
    if not processes.is_first():
        return
    arrays = jax.tree.map(np.asarray, jax.device_get(arrays))
    metadata = {**metadata, "step": step, "digest": tree_digest(arrays)}
    # Says now, not at the next start, that something cannot be stored.
    metadata[_METADATA_DIGEST] = _metadata_digest(metadata)
    complete = _steps(folder)
    with _manager(folder, keep) as manager:
        for there in manager.all_steps():
            # A run went back behind this step: after a kill, or because it is damaged. Orbax would not save, silently.
            if there >= step or there not in complete:
                manager.delete(there)
        manager.save(
            step,
            args=ocp.args.Composite(**{_ARRAYS: ocp.args.PyTreeSave(arrays), _METADATA: ocp.args.JsonSave(metadata)}),
        )
        manager.wait_until_finished()


def _alone() -> ocp.options.MultiprocessingOptions:
    index = processes.index()
    return ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})


def _manager(folder: Path, keep: int) -> ocp.CheckpointManager:
    folder.mkdir(parents=True, exist_ok=True)  # Orbax does not for a process by itself
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=False,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
        multiprocessing_options=_alone(),
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)


def _reader(folder: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        create=False, enable_async_checkpointing=False, multiprocessing_options=_alone()
    )
    handlers = {
        _ARRAYS: ocp.PyTreeCheckpointHandler(multiprocessing_options=_alone()),
        _METADATA: ocp.JsonCheckpointHandler(multiprocessing_options=_alone()),
    }
    return ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)


def _steps(folder: Path) -> list[int]:
    """Returns the complete steps of a folder; a stray empty folder or a half-written one is none."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.name.isdigit())
    return sorted(int(path.name) for path in found if (path / _METADATA).is_dir() and (path / _ARRAYS).is_dir())


def _newest_undamaged(workdir: str | Path, read: Callable[[Path, int], Any]) -> Any:
    """Returns what `read` gives of the newest train state that it does not find damaged; None where there is none."""
    folder = Path(workdir) / "latest"
    steps = _steps(folder)
    for step in reversed(steps):
        try:
            return read(folder, step)
        except DamagedCheckpointError as error:
            logging.warning("%s Going back to the checkpoint before it.", error)
    if steps:
        raise DamagedCheckpointError(f"{folder}: every checkpoint in it is damaged; delete {workdir} and train again.")
    return None


def _read_metadata(folder: Path, step: int) -> dict:
    with _damage_named(folder / str(step)), _reader(folder) as reader:
        metadata = reader.restore(step, args=ocp.args.Composite(**{_METADATA: ocp.args.JsonRestore()}))[_METADATA]
        saved = metadata.pop(_METADATA_DIGEST)
    if _metadata_digest(metadata) != saved:
        raise DamagedCheckpointError(f"{folder / str(step)} is damaged: its metadata are not those that were saved.")
    return metadata


def _metadata_digest(metadata: dict) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _read(folder: Path, step: int) -> tuple[dict[str, np.ndarray], dict]:
    metadata = _read_metadata(folder, step)
    with _damage_named(folder / str(step)):
        with _reader(folder) as reader:
            # As they were saved, NumPy arrays. To ask for that by name takes Orbax as long again as reading them.
            arrays = reader.restore(step, args=ocp.args.Composite(**{_ARRAYS: ocp.args.PyTreeRestore()}))[_ARRAYS]
        found, saved = tree_digest(arrays), metadata["digest"]
    if found != saved:
        raise DamagedCheckpointError(
            f"{folder / str(step)} is damaged: its content has SHA-256 {found}, saved was {saved}."
        )
    return arrays, metadata


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Whatever Orbax, tensorstore or json say of broken files, it is one thing to the user."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:200]  # tensorstore adds its whole configuration
        raise DamagedCheckpointError(f"{path} cannot be read: the checkpoint is damaged ({reason}).") from error


def _check_fit(where: str, arrays: dict[str, np.ndarray], like: dict[str, Any]) -> None:
    wrong = [
        f"{name}: {_describe(arrays.get(name))} instead of {_describe(like.get(name))}"
        for name in sorted({*arrays, *like})
        if _describe(arrays.get(name)) != _describe(like.get(name))
    ]
    if wrong:
        raise UserError(
            f"{where} was saved by another network, recipe or version: {'; '.join(wrong[:5])}. Give another folder "
            "(--config.workdir=...), or delete this one to train it anew."
        )


def _describe(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
