"""A trained classifier with its lung region generator, at work on films of any source: films -> readings, in order.

Everything from the file to the networks' input is what training did: one reader, one resize, the lung region found by
the same post-processing and cut at full resolution (`crops`), the preprocessing that the checkpoint stores.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from sdfn_jax.core import checkpoint, run_identity, run_metadata
from sdfn_jax.core.arguments import BATCH_SIZE
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.parallel import in_batches, map_in_order, one_ahead
from sdfn_jax.heatmaps import cam
from sdfn_jax.inference import quality
from sdfn_jax.inference.prediction import Provenance, Reading
from sdfn_jax.lungs import contrast, lung_boxes
from sdfn_jax.lungs import segmenter as lungs_segmenter
from sdfn_jax.lungs.lung_boxes import LungRegion, PostProcessing
from sdfn_jax.metrics import calibration as metrics_calibration
from sdfn_jax.metrics import predictions
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.models.sdfn import SDFN
from sdfn_jax.radiographs import crops, pixels, reader
from sdfn_jax.radiographs.findings import FINDINGS

# Opens a film: the radiograph, (H, W) uint8, and the flags that it carries already.
_Load = Callable[[], tuple[np.ndarray, tuple[str, ...]]]


@dataclasses.dataclass(frozen=True)
class Film:
    """A file to read.

    Attributes:
      name: tells it apart within the output.
      path: the file.
    """

    name: str
    path: Path


@dataclasses.dataclass(frozen=True)
class Problem:
    """A file that could not be read.

    Attributes:
      name: of its `Film`.
      reason: what is wrong with it, in a sentence.
    """

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A trained extractor or fusion network.

    Attributes:
      model: {branch: (B, S, S, channels) float32} -> logits (B, 14), features {branch: (B, h, w, C)}.
      variables: its variables.
      preprocessing: from grey levels to its input.
      batch_size: films at a time, the one shape that is compiled.
    """

    model: SDFN
    variables: dict
    preprocessing: Preprocessing
    batch_size: int

    def start(self, batch: Sequence[Mapping[str, np.ndarray]]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Starts the network on the images of at most `batch_size` films and returns at once.

        Returns:
          logits (batch_size, 14) float32 and features {branch: (batch_size, h, w, C)} of one pass; the rows that
          `batch` lacks mean nothing.
        """
        missing = self.batch_size - len(batch)
        stacked = {
            branch: np.pad(np.stack([each[branch] for each in batch]), ((0, missing), (0, 0), (0, 0)))
            for branch in self.model.branches
        }
        return self._network(self._on_device, stacked)

    def finish(self, logits: jax.Array, features: dict[str, jax.Array]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Waits for what `start` returned.

        Returns:
          logits (batch_size, 14) float64 and class activation maps {branch: (batch_size, h, w, 14) float32} (eq. 5).
        """
        logits, features = jax.device_get((logits, features))
        maps = cam.activation_maps(features, self.variables["params"]["head"]["kernel"], self.model.branches)
        return logits.astype(np.float64), maps

    @functools.cached_property
    def _on_device(self) -> dict:
        return jax.device_put(self.variables)

    @functools.cached_property
    def _network(self):
        def network(variables: dict, batch: dict[str, jax.Array]):
            prepared = {branch: self.preprocessing(grey) for branch, grey in batch.items()}
            return self.model.apply(variables, prepared, train=False)

        return jax.jit(network)


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
    """A film on its way through the networks; of one that cannot be read, name and problem."""

    name: str
    radiograph: np.ndarray | None = None
    problem: str | None = None
    lrg_input: np.ndarray | None = None
    region: LungRegion | None = None
    crops: dict[str, np.ndarray] | None = None
    flags: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """A classifier, and the lung region generator it was trained with.

    Attributes:
      classifier: the network that reads entire radiographs, lung regions, or both.
      segmenter: the lung region generator; None where the classifier needs none and none is there.
      postprocessing: from its masks to lung boxes, as the classifier's training data had them.
      calibration: what the run's validation split says of its probabilities; None where it was not evaluated.
      uncalibrated: why there is no calibration, and the command that makes one; empty where there is one.
      provenance: what its readings are made with.
    """

    classifier: Classifier
    segmenter: lungs_segmenter.Segmenter | None
    postprocessing: PostProcessing | None
    calibration: metrics_calibration.Record | None
    uncalibrated: str
    provenance: Provenance

    @classmethod
    def load(cls, run: str | Path, lrg: str | Path | None = None, batch_size: int = BATCH_SIZE) -> "Predictor":
        """Loads the best checkpoint of a classifier and its lung region generator.

        Args:
          run: folder of a trained stage `entire`, `lung` or `fusion`.
          lrg: folder of the lung region generator; where it is None, the one that the run's config names, or that of
            the same name beside `run`; only the latter where `run` is not in the place that its config names. A
            network of the entire branch alone does without, and then says nothing of lungs.
          batch_size: films at a time.

        Raises:
          UserError: without a trained checkpoint, for a damaged one or one of another stage, or without a lung region
            generator where the network reads the lung region.
        """
        variables, metadata = checkpoint.read_best(run)
        config = metadata["config"]
        if config["stage"] == "lrg":
            raise UserError(
                f"{run} holds a lung region generator, which finds lungs but no findings; give the folder of a "
                "classifier: of the stage entire, lung or fusion"
            )
        # Lists, as JSON gave them back, cannot be hashed, and a module is.
        shape = {name: tuple(value) if isinstance(value, list) else value for name, value in config["model"].items()}
        dtype = jnp.dtype(run_identity.precision(config))
        model = SDFN(branches=tuple(config["branches"]), densenet=shape, classes=len(FINDINGS), dtype=dtype)
        preprocessing = Preprocessing.of(config)
        segmenter = _segmenter(run, config, lrg, batch_size)
        calibration, uncalibrated = _calibration(run, metadata)
        training = run_metadata.read(metadata)
        return cls(
            classifier=Classifier(model, variables, preprocessing, batch_size),
            segmenter=segmenter,
            postprocessing=_postprocessing(config, segmenter),
            calibration=calibration,
            uncalibrated=uncalibrated,
            provenance=Provenance(
                stage=config["stage"],
                checkpoint=metadata["digest"],
                lrg_checkpoint=None if segmenter is None else segmenter.digest,
                data_version=training.data_version,
                label_version=training.label_version,
                drawings=training.drawings,
                imported=training.imported,
                preprocessing=preprocessing.as_dict(),
                thresholds={} if calibration is None else calibration.thresholds(),
                undecided=_undecided(calibration),
                calibrated=() if calibration is None else calibration.calibrated(),
                software={name: version for name, version in predictions.software().items() if version is not None},
            ),
        )

    @property
    def gaps(self) -> str:
        """One line on the findings without a calibration or a decision, and why; empty if there are none."""
        return self.uncalibrated if self.calibration is None else self.calibration.gaps()

    def readings(self, films: Iterable[Film], fixes: Sequence[str] = ()) -> Iterator[Reading | Problem]:
        """Reads films, in order; decoding, networks and post-processing run side by side.

        Memory stays the same however many films there are. A film is always in the same batch, at the same place, for
        the same `films`; an unreadable one leaves its place empty.

        Args:
          films: the files.
          fixes: names from `guards.FIXES`, applied to the films that are flagged so, before anything else.

        Yields:
          for each film a `Reading`, or a `Problem` where its file cannot be read.
        """
        opened = ((film.name, functools.partial(reader.read_with_flags, film.path)) for film in films)
        return self._stream(opened, fixes)

    def read(self, name: str, radiograph: ArrayLike, flags: tuple[str, ...] = ()) -> Reading:
        """Reads one radiograph that is in memory, at once: compiled for a batch of one.

        Args:
          name: for the reading.
          radiograph: (H, W) uint8, bones bright, as `images.read_radiograph` gives it; or in any other form that
            `images.as_radiograph` takes, by its rules.
          flags: names from `flags.FLAGS` that it carries already.

        Raises:
          ValueError: for what cannot be taken as one radiograph, in a sentence that begins with `name`.
        """
        try:
            radiograph = reader.as_radiograph(radiograph)
        except ValueError as error:
            raise ValueError(f"{name}: {error}" if name else str(error)) from error
        (reading,) = self._single._stream([(name, lambda: (radiograph, flags))], ())
        return reading

    @functools.cached_property
    def _single(self) -> "Predictor":
        return dataclasses.replace(
            self,
            classifier=dataclasses.replace(self.classifier, batch_size=1),
            segmenter=None if self.segmenter is None else dataclasses.replace(self.segmenter, batch_size=1),
        )

    def _stream(self, films: Iterable[tuple[str, _Load]], fixes: Sequence[str]) -> Iterator[Reading | Problem]:
        work = map_in_order(functools.partial(self._open, fixes), films)
        if self.segmenter is not None:
            work = map_in_order(self._box, self._find_lungs(work))
        return self._classify(work)

    def _open(self, fixes: Sequence[str], film: tuple[str, _Load]) -> _Work:
        name, load = film
        try:
            radiograph, flags = load()
        except OSError as error:  # in the words that other problems have, without its number
            return _Work(name, problem=f"{error.filename or name}: {error.strerror or error}")
        except ValueError as error:
            return _Work(name, problem=str(error))
        flagged = quality.check(radiograph, None) if fixes else ()
        applied = tuple(fix for fix in quality.FIXES if fix in fixes and fix in flagged)
        for fix in applied:
            radiograph = quality.fix(radiograph, fix)
        work = _Work(name, radiograph, flags=flags, fixes=applied)
        if self.segmenter is None:
            return self._cut_and_check(work)
        resized = pixels.resize(radiograph, (self.segmenter.size,) * 2)
        return dataclasses.replace(work, lrg_input=contrast.contrast(resized, self.segmenter.contrast))

    def _find_lungs(self, films: Iterable[_Work]) -> Iterator[tuple[_Work, np.ndarray]]:
        empty = np.zeros((self.segmenter.size,) * 2, np.float32)

        def start(batch: Sequence[_Work]) -> jax.Array:
            return self.segmenter.start(np.stack([empty if work.problem else work.lrg_input for work in batch]))

        started = ((batch, start(batch)) for batch in in_batches(films, self.segmenter.batch_size))
        for batch, found in one_ahead(started):
            yield from zip(batch, np.asarray(found) > lungs_segmenter.THRESHOLD, strict=False)

    def _box(self, film: tuple[_Work, np.ndarray]) -> _Work:
        work, mask = film
        if work.problem:
            return work
        region = lung_boxes.lung_box(mask, work.radiograph.shape, self.postprocessing)
        return self._cut_and_check(dataclasses.replace(work, region=region, lrg_input=None))

    def _cut_and_check(self, work: _Work) -> _Work:
        box = None if work.region is None else work.region.box
        return dataclasses.replace(
            work,
            crops=crops.cut(work.radiograph, box, self.classifier.preprocessing.size),
            flags=quality.check(work.radiograph, work.region) + work.flags,
        )

    def _classify(self, films: Iterable[_Work]) -> Iterator[Reading | Problem]:
        blank = np.zeros((self.classifier.preprocessing.size,) * 2, np.uint8)
        empty = dict.fromkeys(self.classifier.model.branches, blank)

        def start(batch: Sequence[_Work]):
            return self.classifier.start([empty if work.problem else work.crops for work in batch])

        started = ((batch, start(batch)) for batch in in_batches(films, self.classifier.batch_size))
        for batch, under_way in one_ahead(started):
            logits, maps = self.classifier.finish(*under_way)
            for row, work in enumerate(batch):
                if work.problem:
                    yield Problem(work.name, work.problem)
                else:
                    yield self._reading(work, logits[row], {branch: each[row] for branch, each in maps.items()})

    def _reading(self, work: _Work, logits: np.ndarray, maps: dict[str, np.ndarray]) -> Reading:
        probabilities = expit(logits)
        nothing = np.full(len(FINDINGS), np.nan)
        return Reading(
            name=work.name,
            radiograph=work.radiograph,
            lung_box=None if work.region is None else work.region.box,
            rule="" if work.region is None else work.region.rule,
            flags=work.flags,
            fixes=work.fixes,
            probabilities=probabilities,
            calibrated=nothing if self.calibration is None else self.calibration.apply(probabilities),
            maps=maps,
        )


def _segmenter(
    run: str | Path, config: dict, named: str | Path | None, batch_size: int
) -> lungs_segmenter.Segmenter | None:
    if named is not None:
        return lungs_segmenter.Segmenter.load(named, batch_size)
    stored = Path(config["lrg"]["workdir"]) if "lrg" in config else Path("lrg")
    places = [Path(run).absolute().parent / stored.name]
    # The config's own path may be relative. Where it leads to the run too, it leads to what the run was trained with;
    # elsewhere it would lead to the generator of whoever is at work in this folder.
    if "lrg" in config and Path(config["workdir"]).resolve() == Path(run).resolve():
        places.insert(0, stored)
    for place in places:
        if checkpoint.best_metadata(place) is not None:
            return lungs_segmenter.Segmenter.load(place, batch_size)
    if "lung" not in config["branches"]:
        return None
    raise UserError(
        f"{run}: this network reads the lung region, and its lung region generator is not there; looked for a trained "
        f"one in {' and '.join(map(str, places))}. Name its folder: --lrg=FOLDER"
    )


def _postprocessing(config: dict, segmenter: lungs_segmenter.Segmenter | None) -> PostProcessing | None:
    if segmenter is None:
        return None
    return PostProcessing(**config["lrg"]["postprocessing"]) if "lrg" in config else segmenter.postprocessing


def _undecided(calibration: metrics_calibration.Record | None) -> dict[str, str]:
    if calibration is not None:
        return calibration.undecided()
    return dict.fromkeys(FINDINGS, "the checkpoint carries no operating points")


def _calibration(run: str | Path, metadata: dict) -> tuple[metrics_calibration.Record | None, str]:
    """Returns the run's calibration, or None and why."""
    found, why = metrics_calibration.of_checkpoint(run, metadata["digest"])
    if found is not None:
        return found, ""
    command = predictions.evaluation_command(run, "validation", metadata["config"])
    return None, (
        f"neither calibrated probabilities nor operating points: {Path(run) / metrics_calibration.FILE} {why}. "
        "Make it: "
        f"{command}"
    )
