"""A trained classifier with its lung region generator, or the latter alone: radiographs -> readings, in order.

Everything from the file to the networks' input is as in training: one reader, one resize, the lung region found by
the same post-processing and cut at full resolution (`crops`), the preprocessing that the checkpoint stores.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from sdfn_jax.core import networks, run_folders
from sdfn_jax.core.arguments import BATCH_SIZE
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.parallel import in_batches, map_in_order, one_ahead
from sdfn_jax.inference import one_file, trained_run
from sdfn_jax.inference.classifier import Classifier, Outputs
from sdfn_jax.inference.prediction import Provenance, Reading
from sdfn_jax.lungs import mask, outline, shipped
from sdfn_jax.lungs.finder import LungFinder
from sdfn_jax.lungs.lung_boxes import LungRegion
from sdfn_jax.metrics import calibration as metrics_calibration
from sdfn_jax.metrics import ensembles
from sdfn_jax.models import sdfn
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.radiographs import crops, flags, opening, quality
from sdfn_jax.radiographs.opening import ImageArray, ImageFile, Unreadable


@dataclasses.dataclass(frozen=True, eq=False)
class _InWork:
    """A radiograph on its way through the networks."""

    name: str
    radiograph: np.ndarray
    flags: tuple[str, ...]
    fixes: tuple[str, ...]
    region: LungRegion | None = None
    lung_probabilities: np.ndarray | None = None
    lung_outline: tuple[np.ndarray, ...] = ()
    inputs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """A classifier and the lung region generator it was trained with, or a lung region generator alone.

    `predictor("film.dcm")` reads one radiograph, `predictor(paths)` streams many; see `__call__`.

    Attributes:
      classifier: the network that reads the branches' images; None for readings of the lungs alone.
      lungs: the lung region generator, with the post-processing that the classifier's training data had; None if the
        classifier needs none and none was found.
      calibration: of its probabilities, from the run's validation split; None if it was not evaluated there.
      uncalibrated: why there is no calibration, and the command that makes one; empty if there is one.
      provenance: what its readings are made with.
    """

    classifier: Classifier | None
    lungs: LungFinder | None
    calibration: metrics_calibration.Record | None
    uncalibrated: str
    provenance: Provenance

    @classmethod
    def load(cls, run: str | Path | None, lrg: str | Path | None = None, batch_size: int = BATCH_SIZE) -> "Predictor":
        """Loads the best checkpoint of a classifier and its lung region generator.

        Args:
          run: folder of a trained stage `entire`, `lung` or `fusion`, of an ensemble of them (`runs/ensemble/fusion`),
            or of several (`runs/demo`): then the fusion network in it, or else its one extractor; or the file that
            `publish` made of one, with its lung region generator. None for the lungs alone, without findings.
          lrg: folder of the lung region generator. If None, the one that the run's config names, or that of the same
            name next to `run`; only the latter if `run` is not in the place that its config names. A network of the
            entire radiograph alone works without one, and then reports no lungs. Without a run, the package's own.
          batch_size: radiographs at a time.

        Raises:
          UserError: without a trained checkpoint, for a damaged one or one of another stage, for a folder of runs that
            does not make clear which is meant, or without a lung region generator if the network reads the lung region.
        """
        if run is None:
            lungs = LungFinder.load(lrg, batch_size)
            return cls(None, lungs, None, "", trained_run.provenance_of_lungs(lungs))
        if Path(run).is_file():
            with one_file.unpacked(run) as folder:
                return cls.load(folder, lrg, batch_size)
        run = run_folders.network(Path(run), trained_run.stage_of)
        variables, metadata = networks.read(run)
        config = metadata["config"]
        if config["stage"] == "lrg":
            raise UserError(
                f"{run} holds a lung region generator, which finds lungs but no findings; give the folder of a "
                "classifier: of the stage entire, lung or fusion"
            )
        lungs = trained_run.lung_finder(run, config, lrg, batch_size)
        calibration, uncalibrated = trained_run.calibration_of(run, metadata)
        provenance = trained_run.provenance(metadata, lungs, calibration)
        network = sdfn.from_config(config, len(provenance.findings))
        return cls(
            classifier=Classifier(network, variables, Preprocessing.of(config), batch_size),
            lungs=lungs,
            calibration=calibration,
            uncalibrated=uncalibrated,
            provenance=provenance,
        )

    def describe(self) -> str:
        """Returns a phrase that names the network: the classifier's, or the lung region generator's if it is alone."""
        if self.classifier is not None:
            return f"checkpoint {self.provenance.checkpoint[:12]}"
        digest = self.provenance.lrg_checkpoint
        own = f"lung region generator {digest[:12]}"
        return f"{shipped.describe() if digest == shipped.digest() else own}, no classifier"

    @property
    def findings(self) -> tuple[str, ...]:
        """What the classifier looks for, in the order of its outputs; empty without one."""
        return self.provenance.findings

    @property
    def batch_size(self) -> int:
        """Radiographs at a time."""
        return self.lungs.segmenter.batch_size if self.classifier is None else self.classifier.batch_size

    @property
    def gaps(self) -> str:
        """One line on the findings without a calibration or a decision, and why; empty if there are none."""
        return self.uncalibrated if self.calibration is None else self.calibration.gaps()

    def __call__(
        self, radiographs: str | os.PathLike | ArrayLike | Iterable[str | os.PathLike | ArrayLike]
    ) -> Reading | Iterator[Reading | Unreadable]:
        """Reads one radiograph, or streams many.

        Args:
          radiographs: a path, an (H, W) array in any form that `grey_levels.as_radiograph` takes (bones bright), or an
            iterable of these. A reading is named by the path as given, or by the array's position.

        Returns:
          the reading of one; of many an iterator, in order, with an `Unreadable` (`.name`, `.reason`) for each that
          cannot be read. Memory stays the same however many there are.

        Raises:
          ValueError: for one radiograph that cannot be read as one.
          OSError: for one file that cannot be opened.
          TypeError: for anything but paths and arrays.
          ImportError: for DICOM without its packages.
        """
        if not opening.is_one(radiographs):
            return self.readings(opening.as_images(radiographs))
        return self._read(opening.as_image(radiographs))

    def features(
        self, radiographs: str | os.PathLike | ArrayLike | Iterable[str | os.PathLike | ArrayLike]
    ) -> np.ndarray:
        """Returns what the classifier's last layer sees of radiographs: the pooled features of its branches.

        Args:
          radiographs: N of them, as `__call__` takes them; one counts as N = 1.

        Returns:
          (N, C) float32: of a fusion network's two DenseNet-121 C = 2048, the entire radiograph's 1024 first; of an
          extractor 1024; of an ensemble its members' one after the other.

        Raises:
          ValueError: naming the first that cannot be read; without a classifier.
          TypeError: as `__call__`.
        """
        if self.classifier is None:
            raise ValueError("no classifier was loaded, so there are no features; load the folder of one")
        images = [opening.as_image(radiographs)] if opening.is_one(radiographs) else opening.as_images(radiographs)
        pools = []
        for batch, outputs in self._outputs(images, fixes=()):
            for each in batch:
                if isinstance(each, Unreadable):
                    raise ValueError(each.reason)
            pools.append(self.classifier.pool(outputs)[: len(batch)])
        return np.concatenate(pools) if pools else np.zeros((0, self.classifier.width), np.float32)

    def readings(
        self, images: Iterable[ImageFile | ImageArray], fixes: Sequence[str] = ()
    ) -> Iterator[Reading | Unreadable]:
        """Reads images, in order; decoding, networks and post-processing run side by side.

        Memory stays the same however many images there are. An image is always in the same batch, at the same place,
        for the same `images`; an unreadable one leaves its place empty.

        Args:
          images: with names.
          fixes: names from `quality.FIXES`, applied to the radiographs that are flagged so, before anything else.

        Yields:
          for each image a `Reading`, or an `Unreadable`.
        """
        if self.classifier is None:
            for each in self._inputs(images, fixes):
                yield each if isinstance(each, Unreadable) else self._reading(each, None, {})
            return
        for batch, outputs in self._outputs(images, fixes):
            maps = self.classifier.activation_maps(outputs)
            logits = np.stack([logits for logits, _ in outputs]).astype(np.float64)
            for row, each in enumerate(batch):
                if isinstance(each, Unreadable):
                    yield each
                else:
                    yield self._reading(each, logits[:, row], {branch: maps[branch][row] for branch in maps})

    def read(self, name: str, radiograph: ArrayLike, flags: tuple[str, ...] = (), fixes: Sequence[str] = ()) -> Reading:
        """Reads one radiograph that is in memory, at once: compiled for a batch of one.

        Args:
          name: for the reading.
          radiograph: in any form that `grey_levels.as_radiograph` takes, bones bright.
          flags: names from `flags.FLAGS` that are known already.
          fixes: as in `readings`.

        Raises:
          ValueError: for an array that is not one radiograph, in a sentence that begins with `name`.
        """
        return self._read(ImageArray(name, radiograph, flags), fixes)

    def _read(self, image: ImageFile | ImageArray, fixes: Sequence[str] = ()) -> Reading:
        loaded = ImageArray(image.name, *image.load())
        (reading,) = self._single.readings([loaded], fixes)
        return cast(Reading, reading)  # it was loaded

    @functools.cached_property
    def _single(self) -> "Predictor":
        return dataclasses.replace(
            self,
            classifier=None if self.classifier is None else dataclasses.replace(self.classifier, batch_size=1),
            lungs=None if self.lungs is None else self.lungs.single,
        )

    def _outputs(
        self, images: Iterable[ImageFile | ImageArray], fixes: Sequence[str]
    ) -> Iterator[tuple[Sequence[_InWork | Unreadable], Outputs]]:
        """Yields batches: radiographs, and what the classifier makes of them."""
        blank = np.zeros((self.classifier.preprocessing.size,) * 2, np.uint8)
        empty = dict.fromkeys(self.classifier.model.branches, blank)

        def start(batch: Sequence[_InWork | Unreadable]) -> list[tuple[jax.Array, dict[str, jax.Array]]]:
            return self.classifier.start([empty if isinstance(each, Unreadable) else each.inputs for each in batch])

        batches = in_batches(self._inputs(images, fixes), self.classifier.batch_size)
        for batch, under_way in one_ahead((batch, start(batch)) for batch in batches):
            yield batch, jax.device_get(under_way)

    def _inputs(self, images: Iterable[ImageFile | ImageArray], fixes: Sequence[str]) -> Iterator[_InWork | Unreadable]:
        """Yields each image with the inputs of the classifier."""
        if self.lungs is None:
            return map_in_order(lambda image: self._cut(self._open(image, fixes), None), images)

        def open_and_shrink(image: ImageFile | ImageArray) -> tuple[_InWork | Unreadable, np.ndarray | None]:
            opened = self._open(image, fixes)
            return opened, None if isinstance(opened, Unreadable) else self.lungs.shrink(opened.radiograph)

        found = self.lungs.segmenter.stream(images, open_and_shrink)
        return map_in_order(lambda one: self._cut(*one), found)

    def _open(self, image: ImageFile | ImageArray, fixes: Sequence[str]) -> _InWork | Unreadable:
        loaded = opening.load(image)
        if isinstance(loaded, Unreadable):
            return loaded
        radiograph, flags = loaded
        flagged = quality.check(radiograph) if fixes else ()
        applied = tuple(fix for fix in quality.FIXES if fix in fixes and fix in flagged)
        for fix in applied:
            radiograph = quality.fix(radiograph, fix)
        return _InWork(image.name, radiograph, flags, applied)

    def _cut(self, work: _InWork | Unreadable, probabilities: np.ndarray | None) -> _InWork | Unreadable:
        """Boxes the lungs, cuts the branches' inputs, and names what looks wrong."""
        if isinstance(work, Unreadable):
            return work
        region, small, inputs = None, None, {}
        doubts: tuple[str, ...] = ()
        line: tuple[np.ndarray, ...] = ()
        if probabilities is not None:
            region = self.lungs.region(probabilities, work.radiograph.shape)
            doubts = self.lungs.doubts(region, work.radiograph.shape)
            small = mask.decided(probabilities, region.kept)
            line = outline.outline(probabilities, region.kept, work.radiograph.shape)
        if self.classifier is not None:
            inputs = crops.cut(work.radiograph, region and region.box, self.classifier.preprocessing.size)
        return dataclasses.replace(
            work,
            region=region,
            lung_probabilities=small,
            lung_outline=line,
            inputs=inputs,
            flags=flags.in_order(quality.check(work.radiograph) + doubts + work.flags),
        )

    def _by_finding(self, values: np.ndarray) -> dict[str, float | None]:
        """(K,) float64 -> {finding: value}, None for NaN."""
        named = zip(self.findings, values.tolist(), strict=True)
        return {name: None if math.isnan(value) else value for name, value in named}

    def _reading(self, work: _InWork, logits: np.ndarray | None, maps: dict[str, np.ndarray]) -> Reading:
        probabilities, calibrated, spread = {}, {}, {}
        if logits is not None:  # of each member, (M, K)
            of_members = expit(logits)
            values = ensembles.mean(of_members)
            probabilities, calibrated = self._by_finding(values), dict.fromkeys(self.findings)
            if len(of_members) > 1:
                spread = self._by_finding(ensembles.spread(of_members))
            if self.calibration is not None:
                calibrated = self._by_finding(self.calibration.apply(values))
        region = work.region
        return Reading(
            name=work.name,
            radiograph=work.radiograph,
            lung_box=None if region is None else region.box,
            rule="" if region is None else region.rule,
            lung_area=None if region is None else region.lung_area,
            confidence=None if region is None else region.confidence,
            lung_probabilities=work.lung_probabilities,
            lung_outline=work.lung_outline,
            flags=work.flags,
            fixes=work.fixes,
            probabilities=probabilities,
            calibrated=calibrated,
            spread=spread,
            maps=maps,
            provenance=self.provenance,
        )


load = Predictor.load
