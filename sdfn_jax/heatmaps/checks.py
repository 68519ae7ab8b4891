"""Checks of a network's heatmaps, as other libraries make them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from sdfn_jax.core import progress
from sdfn_jax.core.errors import UserError
from sdfn_jax.heatmaps import boxed_run, cam, faithfulness, localization, over_split
from sdfn_jax.heatmaps.check_results import CURVES, CaseMean, Checks
from sdfn_jax.metrics import bootstrap
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import tasks
from sdfn_jax.training.labelling import Labelling

_CASES = 200  # at most; each is read by the network 44 times
_REPLICATES = 2000
_SEED = 0
_OTHER_WEIGHTS = (0, 3)  # a seed that no training draws its first weights from: one may have moved them little
_GRID = 16  # every so many pixels, heatmaps of other weights are compared: their cells are larger


@dataclasses.dataclass(frozen=True)
class _Case:
    """One finding on one image; `row` is the image's number, `finding` the place among the network's."""

    row: int
    finding: int
    patient: int | str
    size: tuple[int, int]
    lung_box: tuple[int, int, int, int]
    references: np.ndarray

    def heatmap(self, maps: Sequence[Mapping[str, np.ndarray]], outside: str) -> np.ndarray:
        """Returns its heatmap on the radiograph, of the maps of all images."""
        return cam.on_radiograph(self.own(maps), self.lung_box, self.size, outside)

    def own(self, maps: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Returns {branch: (h, w)}."""
        return {branch: each[..., self.finding] for branch, each in maps[self.row].items()}


def of_network(run: Path, method: str, outside: str) -> tuple[Checks, dict]:
    """Checks the heatmaps of a trained network on the images of the test split that have reference boxes.

    Args:
      run: folder of the stage, `runs/fusion`.
      method: of `cam.METHODS`.
      outside: of `cam.OUTSIDE`; the rules are compared whatever it is.

    Returns:
      what was found, and where it comes from.

    Raises:
      UserError: as `boxed_run.load`; for an ensemble.
    """
    network, cases = _drawn(boxed_run.load(run))
    if len(network.members) > 1:
        raise UserError(f"--run={run}: an ensemble; --checks is for one network: give the run of a member")

    def maps_of(variables: Mapping[str, dict], what: str) -> list[dict[str, np.ndarray]]:
        stream = over_split.stream(network.config, variables, network.examples, method)
        return list(progress.bar(stream, what=what, unit="image", total=len(network.examples)))

    resamples = bootstrap.draw(np.array([case.patient for case in cases]), _REPLICATES, _SEED)
    maps = maps_of(network.members[0], "heatmaps")
    rules = {rule: tuple(_estimates(_peaks(cases, maps, rule), resamples)) for rule in cam.OUTSIDE}
    randomised = {}
    for part, variables in randomised_variables(network).items():
        others = maps_of(variables, f"random {part}")
        alike = [
            faithfulness.rank_correlation(*(case.heatmap(some, outside)[::_GRID, ::_GRID] for some in (maps, others)))
            for case in cases
        ]
        (randomised[part],) = _estimates(np.array(alike)[None], resamples)
    curves = probability_curves(network, cases, maps, outside)  # (cases, 2 heatmaps, 2 curves, fractions)
    areas = faithfulness.area(curves)
    found = Checks(
        cases=len(cases),
        rules=rules,
        randomised=randomised,
        curves={name: curves[:, :, place].mean(axis=0) for place, name in enumerate(CURVES)},
        areas={
            name: tuple(_estimates(np.stack([mine, control, mine - control]), resamples))
            for name, (mine, control) in zip(CURVES, areas.transpose(2, 1, 0), strict=True)
        },
    )
    return found, {"method": f"{network.config.stage}, {method}", "outside": outside} | network.origin


def randomised_variables(network: boxed_run.BoxedRun) -> dict[str, dict]:
    """Returns {part: a network's variables with that part as before any training}: `head`, `branches`, `all`."""
    task = _task(network)
    trained, fresh = (
        traverse_util.flatten_dict(each)
        for each in (network.members[0], initial_variables(task.model, _OTHER_WEIGHTS, task.inputs, train=False))
    )
    parts = {"head": lambda name: name == "head", "branches": lambda name: name != "head", "all": lambda name: True}
    return {
        part: traverse_util.unflatten_dict(
            {path: fresh[path] if is_random(path[1]) else value for path, value in trained.items()}
        )
        for part, is_random in parts.items()
    }


def probability_curves(
    network: boxed_run.BoxedRun, cases: Sequence[_Case], maps: Sequence[Mapping[str, np.ndarray]], outside: str
) -> np.ndarray:
    """Returns the finding's probability as its hottest pixels are deleted from the image, and inserted into grey.

    Returns:
      (cases, 2, 2, fractions): the heatmap and its shuffled cells; deletion and insertion.
    """
    probabilities = _probabilities(network)
    generator = np.random.default_rng(_SEED)
    curves = np.empty((len(cases), 2, len(CURVES), len(faithfulness.FRACTIONS)))
    for number, case in enumerate(progress.bar(cases, what="deletion and insertion", unit="heatmap")):
        images = {branch: network.examples[case.row][branch] for branch in network.config.branches}
        own = case.own(maps)
        batches = []
        for each in (own, faithfulness.shuffled(own, generator)):
            heatmap = cam.on_radiograph(each, case.lung_box, case.size, outside)
            hottest = faithfulness.hottest(heatmap, case.lung_box, {name: len(image) for name, image in images.items()})
            batches.append({name: faithfulness.altered(image, hottest[name]) for name, image in images.items()})
        together = {name: np.concatenate([batch[name] for batch in batches]) for name in images}
        curves[number] = probabilities(together)[:, case.finding].reshape(curves.shape[1:])
    return curves


def _drawn(network: boxed_run.BoxedRun) -> tuple[boxed_run.BoxedRun, list[_Case]]:
    """Returns at most `_CASES` cases, drawn at random, and the network with their examples alone."""
    cases = list(_cases(network))
    chosen = np.random.default_rng(_SEED).permutation(len(cases))[:_CASES]
    cases = [cases[place] for place in sorted(chosen)]
    rows = sorted({case.row for case in cases})
    network = dataclasses.replace(network, examples=network.examples.take(np.array(rows)))
    return network, [dataclasses.replace(case, row=rows.index(case.row)) for case in cases]


def _cases(network: boxed_run.BoxedRun) -> Iterator[_Case]:
    for row, example in enumerate(network.described()):
        size, lung_box = (tuple(map(int, example[name])) for name in ("image_size", "lung_box"))
        for finding, boxes in network.boxes_of(example).items():
            place = network.findings.index(finding)
            yield _Case(row, place, example["patient"], size, lung_box, boxes)


def _peaks(cases: Sequence[_Case], maps: Sequence[Mapping[str, np.ndarray]], rule: str) -> np.ndarray:
    """Returns (2, cases): the share of a heatmap's highest pixels in the lung box, and in the reference boxes."""
    shares = []
    for case in cases:
        heatmap = case.heatmap(maps, rule)
        shares.append([localization.pointing(heatmap, boxes) for boxes in ([case.lung_box], case.references)])
    return np.array(shares).T


def _task(network: boxed_run.BoxedRun) -> tasks.Task:
    return tasks.classification(network.config, Labelling(network.findings, network.available))


def _probabilities(network: boxed_run.BoxedRun) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Returns the function from {branch: (B, S, S) uint8} to (B, K) probabilities."""
    task = _task(network)
    variables = jax.device_put(network.members[0])

    @jax.jit
    def of_images(variables: Mapping[str, dict], images: dict) -> jax.Array:
        prepared, _ = task.prepare(images | {"labels": np.zeros(0)}, None)
        return jax.nn.sigmoid(task.model.apply(variables, prepared, train=False)[0])

    return lambda images: np.asarray(of_images(variables, images))


def _estimates(values: np.ndarray, resamples: bootstrap.Resamples) -> Iterator[CaseMean]:
    """Yields the mean over cases of each row of (rows, cases)."""
    of = bootstrap.sums(np.ones(values.shape[1]), resamples)
    for row in values:
        yield CaseMean(float(row.mean()), *bootstrap.interval(bootstrap.ratio(bootstrap.sums(row, resamples), of)))
