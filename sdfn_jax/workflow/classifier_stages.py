"""Stages that classify: published weights, the extractors and the fusion network, their evaluation (B.3, B.4)."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, ensemble, networks, run_identity, sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import calibration
from sdfn_jax.models import backbones
from sdfn_jax.models.weights import download, hub
from sdfn_jax.radiographs import labels
from sdfn_jax.training import losses
from sdfn_jax.training.resume import standing
from sdfn_jax.training.steps import batch_size_problems
from sdfn_jax.workflow import evaluations, results, stages, starting_weights, time_left
from sdfn_jax.workflow.data_stages import PreparedDataSet
from sdfn_jax.workflow.planning import THERE, TO_DO, Stage, Status, holds_import, training_state
from tfds_builders import registry

_NAMES = {"fusion": "fusion network", "finetuned": "fusion network, fine-tuned"}  # the others are extractors


class PublishedWeights(Stage):
    """Weights that extractors start from and that are downloaded once."""

    name = "published weights"

    def __init__(self, remote: download.Published | hub.HubFile):
        """Takes what is to be downloaded."""
        self._remote = remote
        self.reads, self.writes = remote.url, remote.cached_file()

    @classmethod
    def where_needed(cls, classifiers: list[ConfigDict]) -> "list[PublishedWeights]":
        """Returns a stage for each download that an extractor whose training has not begun starts from."""
        extractors = [stage for stage in classifiers if not stages.upstream(stage)]
        waiting = [stage for stage in extractors if not (standing(stage.workdir) or holds_import(stage))]
        found = dict.fromkeys(starting_weights.remote(stage) for stage in waiting)
        return [cls(remote) for remote in found if remote is not None]

    def _look(self) -> Status:
        return Status(THERE if self.writes.is_file() else TO_DO)

    def run(self) -> None:
        """Downloads them."""
        self._remote.fetch()


class TrainedClassifier(Stage):
    """A trained extractor or fusion network."""

    together = True

    def __init__(
        self,
        config: ConfigDict,
        flag: str,
        data: PreparedDataSet,
        before: Sequence[Stage],
        *,
        name_seed: bool = False,
    ):
        """Makes the stage.

        Args:
          config: of the stage.
          flag: how the command line names it.
          data: its data set.
          before: the stages that make what it starts from.
          name_seed: whether its name ends with its seed, which tells it from others of the job.
        """
        self.config, self._flag, self._data = config, flag, data
        self._upstream = stages.upstream(config)
        self.name = _NAMES.get(config.stage, f"extractor, {config.stage} branch")
        self.name += f", seed {config.seed}" if name_seed else ""
        self.reads = ", ".join([str(data.writes), *(self._upstream.values() or [config.pretrained])])
        self.writes = Path(config.workdir)
        self.needs = [data, *before]
        # A fusion head is trained on features that are computed once and kept.
        self.sets_pace = not config.get("cache_features", False)

    def _look(self) -> Status:
        inputs = stages.data_inputs(self._data.writes) if self._data.there else {}
        state = training_state(self.config, inputs | stages.starting_points(self.config, self._upstream))
        loss = run_identity.setting(self.config, "loss")
        warning = losses.LOSSES[loss].warning
        return Status(state, notes=(f"trained with the loss {loss}: {warning}",) if warning else ())

    def missing(self) -> list[str]:
        """Returns what it cannot start from, and which batches do not fit the devices or the films."""
        problems = self._unfit_labels() + self._missing_start() + batch_size_problems(self.config, self._flag)
        films, batch_size = self._data.counts.get("train", 0), self.config.batch_size
        if 0 < films < batch_size:
            problems.append(
                f"{self._flag}.batch_size={batch_size}: more than the {films:,} films of train; give a smaller one, "
                "or bring more films"
            )
        return problems

    def _unfit_labels(self) -> list[str]:
        available = self._data.findings
        if not available:
            return []
        chosen, uncertain = (run_identity.setting(self.config, name) for name in ("findings", "uncertain"))
        try:
            labels.target_table(labels.choose(available, tuple(chosen)), uncertain)
        except UserError as error:
            return [str(error)]
        return []

    def _missing_start(self) -> list[str]:
        config = self.config
        for stage in self._upstream:
            for setting, of in (("backbone", run_identity.backbone), ("model", backbones.shape_of)):
                if of(config[stage]) != of(config):
                    differs = f"config.{setting} differs from config.{stage}.{setting}"
                    return [f"{differs}: stage {config.stage} starts from that network"]
        path = None if self._upstream else starting_weights.place(config)
        if path is None or (starting_weights.remote(config) is not None and not path.is_file()):
            return []
        if not path.exists():
            return [
                f"the weights that the {config.stage} extractor starts from: no file {path}. {self._flag}.pretrained "
                "takes a weights file (docs/weights.md lists those that are published), the folder of a run, "
                "hf://owner/name/file, imagenet (the paper's: torchvision's, downloaded once), or random (not the "
                "paper's recipe)"
            ]
        try:
            starting_weights.load(config)
        except UserError as error:
            return [f"{self._flag}.pretrained: {error}"]
        return []

    def work(self) -> float:
        """Returns the operations of its training, or of the features on which its head alone is trained."""
        films, config = self._data.expected, self.config
        training, validation = films.get("train", 0), films.get("validation", 0)
        if not self.sets_pace:
            return ((1 + config.flip) * training + validation) * time_left.film_work(config)
        return time_left.training_work(config, training, validation)

    def run(self) -> None:
        """Trains it, or resumes."""
        stages.train_classifier(self.config, self._data.writes)


class Ensembles(Stage):
    """The ensembles of the seeds: which runs each is made of."""

    def __init__(self, shown: list[ConfigDict], trained: Sequence[TrainedClassifier]):
        """Makes the stage.

        Args:
          shown: configs whose folders the ensembles go to, one for each stage.
          trained: all seeds' stages.
        """
        self._runs = {
            stage.workdir: [each.writes for each in trained if each.config.stage == stage.stage] for stage in shown
        }
        count = max(map(len, self._runs.values()))
        self.name = f"ensembles of {count} seeds"
        self.reads = ", ".join(map(str, itertools.chain(*self._runs.values())))
        self.writes = Path(shown[-1].workdir).parent
        self.needs = list(trained)

    def _look(self) -> Status:
        return Status(THERE if all(itertools.starmap(self._is_there, self._runs.items())) else TO_DO)

    def _is_there(self, folder: str, runs: Sequence[Path]) -> bool:
        try:
            found = ensemble.read(folder)
        except sealed.DamagedError as error:  # it is made again
            sealed.say(str(error))
            return False
        now = [(run.resolve(), (checkpoint.best_metadata(run) or {}).get("digest")) for run in runs]
        return found is not None and [(each.run.resolve(), each.checkpoint) for each in found.members] == now

    def run(self) -> None:
        """Writes which runs they are made of."""
        for folder, runs in self._runs.items():
            networks.make_ensemble(folder, runs)


class ClassifierResults(Stage):
    """Predictions of every classifier for validation and test, Table I, the figures and the report."""

    name = "evaluation on test"
    together = True

    def __init__(
        self,
        config: ConfigDict,
        shown: list[ConfigDict],
        data: PreparedDataSet,
        trained: Sequence[TrainedClassifier],
        ensembles: Sequence[Stage] = (),
    ):
        """Makes the stage.

        Args:
          config: of the requested stage.
          shown: configs of the classifiers, or the ensembles, in Table I, with it.
          data: their data set.
          trained: their stages.
          ensembles: the stage that makes the ensembles, if there are any.
        """
        self._config, self._shown, self._data, self._trained = config, shown, data, trained
        self.reads = ", ".join([str(data.writes), *(stage.workdir for stage in shown)])
        self.writes = results.folder(config)
        self.needs = [data, *trained, *ensembles]

    def _look(self) -> Status:
        is_fresh = all(stage.there for stage in self.needs) and all(
            evaluations.is_fresh(stage, self._data.writes, "test") for stage in self._shown
        )
        return Status(THERE if is_fresh and results.is_made(self._config, self._shown) else TO_DO)

    def missing(self) -> list[str]:
        """Returns which of the splits that are still to be read have no film."""
        training = any(not stage.there for stage in self._trained)
        needed = ("train", "validation", "test") if training else ("validation", "test")
        absent = [split for split in needed if self._data.counts and not self._data.counts.get(split)]
        folder, problems = self._config.data.manual_dir, []
        train_val, test = registry.DATA_SETS[self._config.data.name].split_lists
        if "test" in absent:
            problems.append(f"no film of {test} is in {folder}: the evaluation on test needs some. Bring them")
        if of_train_val := [split for split in absent if split != "test"]:
            problems.append(
                f"no film of {train_val} in {folder} goes to {' or '.join(of_train_val)}: bring more patients, "
                "or set aside another --config.data.validation_share"
            )
        return problems

    def work(self) -> float:
        """Returns the operations of the networks over both splits."""
        films = sum(self._data.expected.get(split, 0) for split in ("validation", "test"))
        return films * sum(time_left.film_work(stage.config) for stage in self._trained)

    def run(self) -> None:
        """Evaluates, writes the table and draws."""
        results.make(self._config, self._shown, self._data.writes)


class Calibration(Stage):
    """The calibration of stages that were evaluated before there was any; whatever is evaluated now has it."""

    name = "calibration"
    together = True

    def __init__(
        self, config: ConfigDict, shown: list[ConfigDict], data: PreparedDataSet, evaluation: ClassifierResults
    ):
        """Takes what `ClassifierResults` takes, and that stage."""
        self._shown, self._data, self._evaluation = shown, data, evaluation
        self.reads = ", ".join(stage.workdir for stage in shown)
        self.writes = Path(config.workdir) / calibration.CALIBRATION_FILE
        self.needs = [evaluation]

    @property
    def asked_for(self) -> bool:
        """Whether evaluated stages lack it."""
        return self._evaluation.there and not self.there

    def _look(self) -> Status:
        calibrated = all(evaluations.is_calibrated(stage, self._data.writes) for stage in self._shown)
        return Status(THERE if calibrated else TO_DO)

    def run(self) -> None:
        """Makes it from the predictions for validation."""
        for stage in self._shown:
            evaluations.calibrate(stage, self._data.writes)


class Report(Stage):
    """The report of results that were made before they ended with one."""

    name = "report"

    def __init__(self, config: ConfigDict, shown: list[ConfigDict], evaluation: ClassifierResults):
        """Takes what `ClassifierResults` takes of configs, and the evaluation."""
        self._config, self._shown, self._evaluation = config, shown, evaluation
        self.reads = ", ".join(stage.workdir for stage in shown)
        self.writes = results.folder(config)
        self.needs = [evaluation]

    @property
    def asked_for(self) -> bool:
        """Whether there are results without it."""
        return self._evaluation.there and not self.there

    def _look(self) -> Status:
        return Status(THERE if results.has_report(self._config) else TO_DO)

    def run(self) -> None:
        """Writes it."""
        for line in results.report(self._config, self._shown):
            print(f"left out: {line}")
