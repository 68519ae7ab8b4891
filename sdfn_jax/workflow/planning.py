"""What the plan asks of a stage: what it needs, how far it has come, how it runs."""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, run_identity, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.models import backbones
from sdfn_jax.models.preprocessing import Preprocessing, check_same_preprocessing
from sdfn_jax.training.resume import has_diverged, standing

THERE, TO_DO, NOT_NEEDED = "there", "to do", "not needed"


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a stage has come.

    Attributes:
      state: `there`, `to do`, or how far an interrupted run has come.
      notes: what a reader must know about it.
      conflicts: what on disk contradicts the config, each with its remedy; the plan is refused even if nothing needs
        this stage.
    """

    state: str
    notes: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


class Stage(abc.ABC):
    """One stage of the job; making the object and asking it reads the disk, and changes nothing.

    Attributes:
      name: what is made.
      reads: what it is made from, for the reader.
      writes: where it goes.
      needs: the stages that must be done before it runs.
      together: whether all processes of the run make it; otherwise process 0 does, and the others wait.
      sets_pace: whether it trains a whole network, whose speed tells that of the stages after it.
    """

    name: str
    reads: str
    writes: Path
    needs: Sequence["Stage"] = ()
    together: bool = False
    sets_pace: bool = False

    @functools.cached_property
    def status(self) -> Status:
        """How far it has come, as of the first call.

        Raises:
          UserError: if `writes` holds a different run than the requested one.
        """
        return self._look()

    @property
    def there(self) -> bool:
        """Whether what it makes can be read now."""
        return self.status.state == THERE

    @abc.abstractmethod
    def _look(self) -> Status:
        """Returns `status`."""

    def missing(self) -> list[str]:
        """Returns what it needs and no other stage makes, each with its remedy."""
        return []

    def work(self) -> float:
        """Returns the floating-point operations of its networks, roughly; 0 if it takes no time worth counting."""
        return 0.0

    @abc.abstractmethod
    def run(self) -> None:
        """Makes it."""


def training_state(config: ConfigDict, inputs: dict[str, str]) -> str:
    """Returns how far the training of a stage is, as `Status.state`.

    Args:
      config: of the stage.
      inputs: {what it reads: digest} as far as known now.

    Raises:
      UserError: if its folder holds another run, or one that has diverged.
    """
    stored = standing(config.workdir)
    if stored is None:
        return THERE if holds_import(config) else TO_DO
    run_identity.check_same_run(config.workdir, stored, config, inputs)
    best = checkpoint.best_metadata(config.workdir)
    if stored["finished"] and best is not None and has_diverged(best["validation"]["loss"]):
        raise UserError(
            f"{config.workdir} holds a run whose training has diverged (learning_rate {config.learning_rate:g}): "
            "delete it and train with a smaller one"
        )
    return THERE if stored["finished"] else f"resumes after epoch {stored['epochs_done']} of {config.num_epochs}"


def holds_import(config: ConfigDict) -> bool:
    """Returns whether a network fine-tuned elsewhere (`pretrained.imported`) takes the place of the trained stage.

    Raises:
      UserError: if the imported network is not the one that the config describes.
    """
    stored = checkpoint.best_metadata(config.workdir)
    if stored is None or not run_metadata.is_imported(stored):
        return False
    (imported,) = run_metadata.read(stored).imported.values()
    if stored["stage"] != config.stage:
        raise UserError(
            f"{config.workdir} holds {imported.file}, imported as an extractor of the {stored['stage']} branch, not of "
            f"the {config.stage} branch: give another folder, or import the file again with "
            f"--config=configs/classifier.py:{config.stage}"
        )
    check_same_preprocessing(Preprocessing.of(stored["config"]), config, config.workdir, any_size=False)
    if any(of(stored["config"]) != of(config) for of in (run_identity.backbone, backbones.shape_of)):
        raise UserError(f"{config.workdir} holds {imported.file}, another network than --config.model")
    return True


def begun(stages: Sequence[ConfigDict]) -> list[str]:
    """Returns the folders of those stages whose training has begun."""
    return [stage.workdir for stage in stages if standing(stage.workdir) is not None]
