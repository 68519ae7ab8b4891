"""Stages that find lungs: the lung region generator, and the box table made with it (B.2)."""

import functools
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs import box_record, box_table, lung_boxes, make_box_table, shipped
from sdfn_jax.lungs import segmenter as lungs_segmenter
from sdfn_jax.training.steps import batch_size_problems
from sdfn_jax.workflow import stages, time_left
from sdfn_jax.workflow.data_stages import FoundData, PreparedDataSet
from sdfn_jax.workflow.planning import THERE, TO_DO, Stage, Status, begun, training_state


class LungRegionGenerator(Stage):
    """The trained U-Net."""

    name = "lung region generator"
    together = True
    sets_pace = True

    def __init__(self, config: ConfigDict, flag: str, data: PreparedDataSet):
        """Takes the stage's config, how the command line names it, and its data set."""
        self.config, self._flag, self.data = config, flag, data
        self.reads, self.writes, self.needs = str(data.writes), Path(config.workdir), [data]

    @property
    def learns_from_synthetic(self) -> bool:
        """Whether it was, or will be, trained on synthetic radiographs."""
        trained = checkpoint.best_metadata(self.config.workdir)
        return self.data.found.is_synthetic if trained is None else bool(trained.get("drawings"))

    def _look(self) -> Status:
        return Status(training_state(self.config, stages.data_inputs(self.data.writes) if self.data.there else {}))

    def missing(self) -> list[str]:
        """Returns which batches do not fit the devices or the films."""
        problems, config, counts = batch_size_problems(self.config, self._flag), self.config, self.data.counts
        films = sum(count for split, count in counts.items() if split != f"fold_{config.test_fold}")
        training = films - stages.held_out(config, films)
        if counts and training < config.batch_size:
            problems.append(
                f"{self._flag}.batch_size={config.batch_size}: more than the {training:,} films that are left for "
                "training; give a smaller one, or bring more films"
            )
        return problems

    def work(self) -> float:
        """Returns the operations of its training."""
        films = sum(self.data.expected.values())
        validation = stages.held_out(self.config, films)
        return time_left.training_work(self.config, films - validation, validation)

    def run(self) -> None:
        """Trains it, or resumes."""
        stages.train_lrg(self.config, self.data.writes)


class ShippedGenerator(Stage):
    """The lung region generator of the package, in the place of a trained one."""

    name = "lung region generator"
    learns_from_synthetic = False

    def __init__(self, config: ConfigDict):
        """Takes the stage's config; `config.lrg.shipped` of a classifier asks for this stage."""
        self.config = config
        self.reads, self.writes = shipped.describe(), Path(config.workdir)

    def _look(self) -> Status:
        there = checkpoint.best_metadata(self.writes)
        if there is None:
            return Status(TO_DO, (self.reads,))
        if there["digest"] == shipped.digest():
            return Status(THERE, (self.reads,))
        other = (
            f"{self.writes} holds another lung region generator ({there['digest'][:12]}) than the package: "
            "give another folder for this run, --config.runs=FOLDER"
        )
        return Status(THERE, conflicts=(other,))

    def run(self) -> None:
        """Copies it, so that the run is complete without this version of the package."""
        shipped.copy_to(self.writes)


class BoxTable(Stage):
    """The lung box of every film of the classifiers' data set."""

    name = "lung boxes"

    def __init__(
        self,
        config: ConfigDict,
        generator: LungRegionGenerator | ShippedGenerator,
        data: FoundData,
        readers: list[ConfigDict],
    ):
        """Makes the stage.

        Args:
          config: of a classifier, with `data` and `lrg`.
          generator: what finds the lungs.
          data: the state of the data set.
          readers: configs of the stages that are trained on the data set.
        """
        self._config, self._generator, self._data, self._readers = config, generator, data, readers
        self._processing = lung_boxes.PostProcessing(**config.lrg.postprocessing)
        self.reads, self.writes = f"{config.data.manual_dir}, {config.lrg.workdir}", data.boxes
        self.needs = [*data.synthetic, generator]

    @property
    def made_again(self) -> bool:
        """Whether the table exists, would be made differently now, and may be made again."""
        return bool(self._differences) and not self._conflict()

    @property
    def _differences(self) -> Sequence[str]:
        return () if self._found is None else self._found.differences

    @functools.cached_property
    def _found(self) -> box_record.BoxTableState | None:
        """What is known of the existing table; None if there is none."""
        if not self.writes.is_file():
            return None
        films = {} if self._data.is_fresh or self._data.comes_later else self._data.look.films
        return box_record.compare(self.writes, self._processing, films)

    def _look(self) -> Status:
        notes = []
        if self._differences:
            notes.append(f"made again: {'; '.join(self._differences)}")
        elif self._found is not None and self._generator.there:
            _check_maker(self.writes, checkpoint.best_metadata(self._config.lrg.workdir)["digest"])
        synthetic = self._data.prepared.metadata["drawings"] if self._data.is_fresh else self._data.is_synthetic
        if self._generator.learns_from_synthetic and not synthetic:
            notes.append(lungs_segmenter.TRAINED_ON_SYNTHETIC)
        is_there = self._found is not None and not self._differences
        return Status(THERE if is_there else TO_DO, tuple(notes), tuple(self._conflict()))

    def _conflict(self) -> list[str]:
        """Returns why an outdated table is not made again: trained runs, or changes made by hand."""
        if not self._differences:
            return []
        outdated = f"{self.writes} would be made differently now: {'; '.join(self._differences)}"
        if self._found.edited or not self._found.recorded:
            return [
                f"{outdated}. It {'was' if self._found.edited else 'may have been'} changed by hand: keep it by "
                f"naming it, --config.data.boxes={self.writes}, or delete it to have it made again"
            ]
        trained = begun(self._readers) if self._data.is_fresh else []
        if not trained:
            return []
        return [
            f"{outdated}. {', '.join(trained)} started with it as it is: restore it, or give new folders "
            "(--config.data.data_dir=FOLDER, and workdir of these stages and of the lung region generator), or "
            "delete these runs"
        ]

    def work(self) -> float:
        """Returns the operations of finding all lungs."""
        found = self._data
        films = found.synthetic[0].expected(found.data) if found.comes_later else found.look.counts
        return sum(films.values()) * time_left.film_work(self._config.lrg)

    def run(self) -> None:
        """Finds the lungs on every film."""
        lrg = self._config.lrg
        segmenter = lungs_segmenter.Segmenter.load(lrg.workdir, lrg.evaluation_batch_size)
        films = self._data.films()
        rows = make_box_table.make_box_table(
            segmenter,
            list(films.values()),
            self.writes,
            self._processing,
            self._config.data.skip_bad_files,
            names=list(films),
        )
        print(box_table.rule_counts(rows))


def _check_maker(boxes: Path, digest: str) -> None:
    makers = {row.checkpoint for row in box_table.read_box_table(boxes).values()}
    if makers - {digest}:
        raise UserError(
            f"{boxes} was made by another LRG ({min(makers - {digest})[:12]}) than the one next to it "
            f"({digest[:12]}). Delete it to have it made again, or keep it by naming it: --config.data.boxes={boxes}"
        )
