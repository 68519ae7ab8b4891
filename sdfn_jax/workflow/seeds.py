"""`config.seeds`: one job for each seed, and the ensembles of them all.

A seed changes the drawn weights (the head's; all of them without a weights file), the order of the batches and the
augmentation, of every classifier: each seed is the whole recipe again, a fusion network on extractors of its own. What
is not the classifiers' recipe is shared: the lung region generator, the lung boxes, the data and their splits. So no
film of validation was trained on by any member, and an ensemble can be calibrated there like one network.

The first seed is in the folders of one seed alone, the others in `seed_<n>` next to them, and the ensembles in
`ensemble`: `runs/fusion`, `runs/seed_1/fusion`, `runs/ensemble/fusion`. More seeds can be asked for later.
"""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from sdfn_jax.workflow import stages

ENSEMBLES = "ensemble"  # name of their folder


def of_each(config: ConfigDict) -> list[ConfigDict]:
    """Returns the config of each seed's job, the first seed's first."""
    if not several(config):
        return [config]

    def moved(number: int) -> Callable[[ConfigDict], None]:
        def change(stage: ConfigDict) -> None:
            stage.seed += number
            if number:
                stage.workdir = _next_to(stage.workdir, f"seed_{stage.seed}")

        return change

    return [_changed(config, moved(number)) for number in range(config.seeds)]


def end(config: ConfigDict) -> ConfigDict:
    """Returns the config whose folders hold what the job ends with: the ensembles, or the networks of its one seed."""

    def change(stage: ConfigDict) -> None:
        stage.workdir = _next_to(stage.workdir, ENSEMBLES)

    return _changed(config, change) if several(config) else config


def several(config: ConfigDict) -> bool:
    """Returns whether a job has more than one seed."""
    return config.get("seeds", 1) > 1


def _changed(config: ConfigDict, change: Callable[[ConfigDict], None]) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.seeds = 1
        for stage in stages.classifiers(changed):
            change(stage)
    return changed


def _next_to(workdir: str, name: str) -> str:
    place = Path(workdir)
    return str(place.parent / name / place.name)
