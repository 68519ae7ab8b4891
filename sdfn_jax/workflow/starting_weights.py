"""What an extractor starts from (`config.pretrained`): random weights, ImageNet's, a weights file, or another run."""

import functools
from pathlib import Path

from flax import linen as nn
from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, run_folders, run_identity
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import file_digest
from sdfn_jax.models import backbones, sdfn
from sdfn_jax.models.preprocessing import Preprocessing, check_same_preprocessing
from sdfn_jax.models.weights import download, hub, weights_file

RANDOM = "random"  # in place of a file, as `imagenet`


def place(config: ConfigDict) -> Path | None:
    """Returns the weights file or the folder of the run, which need not exist; None for random weights."""
    if config.pretrained == RANDOM:
        return None
    there = remote(config)
    return Path(config.pretrained) if there is None else there.cached_file()


def remote(config: ConfigDict) -> download.Published | hub.HubFile | None:
    """Returns what is downloaded (`weights_file.remote`); None for random weights, a file or a run."""
    return weights_file.remote(config.pretrained, backbones.named(run_identity.backbone(config)))


def digest(config: ConfigDict) -> str | None:
    """Returns the digest of the file, or of the run's best checkpoint; None as long as there is none."""
    path = place(config)
    if path is None or not path.exists():
        return None
    if path.is_file():
        return file_digest(path)
    metadata = checkpoint.best_metadata(_run(path))
    return None if metadata is None else metadata["digest"]


def load(config: ConfigDict) -> weights_file.Weights:
    """Reads the weights of an extractor's branch, all or none.

    Of a run, the branch of the same name is taken, or its only one; its head stays behind.

    Raises:
      UserError: naming the file or run and what is wrong with it, or for weights that expect other images than this
        config prepares (except for their size, which may change).
    """
    path = place(config)
    if path.is_dir():
        return _of_run(_run(path), config)
    written = path.stat().st_mtime_ns if path.is_file() else None
    found = _read_weights(path, written, backbones.from_config(config))
    check_same_preprocessing(found.preprocessing, config, found.file, any_size=True)
    return found


@functools.lru_cache(maxsize=1)  # the plan reads it, and then both extractors start from it
def _read_weights(path: Path, written: int | None, model: nn.Module) -> weights_file.Weights:
    del written  # its time: a file that was written again is read again
    return weights_file.read(path, model)


def _run(folder: Path) -> Path:
    """Returns the classifier's run of a folder, which may be one of several runs."""
    return run_folders.network(folder, _stage_of)


def _stage_of(run: Path) -> str | None:
    metadata = checkpoint.best_metadata(run)
    return None if metadata is None else metadata["stage"]


def _of_run(run: Path, config: ConfigDict) -> weights_file.Weights:
    variables, metadata = checkpoint.read_best(run)
    its, (branch,) = metadata["config"], config.branches
    if "branches" not in its:
        raise UserError(f"{run} holds no classifier, but the stage {metadata['stage']}: no extractor starts from it")
    for what, of in (("backbone", run_identity.backbone), ("shape", backbones.shape_of)):
        if of(its) != of(config):
            raise UserError(f"{run} holds another network: its {what} is {of(its)}, but {of(config)} was requested")
    check_same_preprocessing(Preprocessing.of(its), config, str(run), any_size=True)
    taken = branch if branch in its["branches"] else its["branches"][0]
    return weights_file.Weights(
        variables=sdfn.branch_variables(variables, taken),
        head=None,
        classes=None,
        preprocessing=Preprocessing.of(its),
        source=f"the {taken} branch of a run of the stage {metadata['stage']}",
        file=str(run),
        sha256=metadata["digest"],
    )
