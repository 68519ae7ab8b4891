"""The runs in a folder: a command that takes the folder of a run also takes `runs/demo`, which holds several."""

from collections.abc import Callable
from pathlib import Path

from sdfn_jax.core.errors import UserError

StageOf = Callable[[Path], str | None]


def by_stage(folder: Path, stage_of: StageOf) -> dict[str, Path]:
    """Returns {stage: folder of its run} of the runs directly in a folder; empty if there are none.

    Args:
      folder: of runs.
      stage_of: returns the stage of the run in a folder, None if there is no such run.

    Raises:
      UserError: naming the runs, if two are of one stage.
    """
    found: dict[str, list[Path]] = {}
    for inside in sorted(folder.iterdir()) if folder.is_dir() else ():
        stage = stage_of(inside) if inside.is_dir() else None
        if stage is not None:
            found.setdefault(stage, []).append(inside)
    for stage, runs in found.items():
        if len(runs) > 1:
            names = ", ".join(map(str, runs))
            raise UserError(f"{folder} holds {len(runs)} runs of the stage {stage}: {names}; name the one you mean")
    return {stage: runs[0] for stage, runs in found.items()}


def network(folder: Path, stage_of: StageOf) -> Path:
    """Returns the folder of a classifier: the given one, or of the runs in it the fusion network or else the extractor.

    Args:
      folder: of a run, or of runs; it is returned as it is if no classifier is in it, for its reader to refuse.
      stage_of: as in `by_stage`.

    Raises:
      UserError: naming the runs, if it is not clear which one is meant.
    """
    if stage_of(folder) is not None:
        return folder
    found = by_stage(folder, stage_of)
    for stage in ("fusion", "finetuned"):
        if stage in found:
            return found[stage]
    extractors = [found[stage] for stage in ("lung", "entire") if stage in found]
    if len(extractors) > 1:
        names = ", ".join(map(str, extractors))
        raise UserError(f"{folder} holds no fusion network but two extractors: {names}; name the one you mean")
    return extractors[0] if extractors else folder
