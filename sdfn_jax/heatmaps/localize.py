"""Boxes of a network's heatmaps, or of another method's, against the reference boxes of ChestX-ray14."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdfn_jax.core import progress
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import folder_locked
from sdfn_jax.heatmaps import cam, check_results, detections, floors, localization
from sdfn_jax.metrics import bootstrap
from sdfn_jax.radiographs.findings import FINDINGS

if TYPE_CHECKING:
    from sdfn_jax.heatmaps.boxed_run import BoxedRun

OFFICIAL_SIDE = 1024  # of the official images, in whose pixels the box list is
_SEED = 0


def localize_files(folder: Path, tables: Path, output: Path) -> None:
    """Writes and prints what `of_files` finds.

    Raises:
      UserError: as `of_files`; if another command is writing to `output`.
    """
    with folder_locked(output):
        _report(output, *of_files(folder, tables))


def localize_network(run: Path, method: str, outside: str, output: Path | None) -> None:
    """Writes and prints what `of_network` finds.

    Args:
      run: folder of the stage.
      method: of `cam.METHODS`.
      outside: of `cam.OUTSIDE`.
      output: where the files go; None for the run's own evaluation/test, which is for the default method and rule.

    Raises:
      UserError: as `of_network`; for an unknown method; if another command is writing to the folder.
    """
    folder = _folder(run, method, outside, output)
    with _writing(run, output):
        _report(folder, *of_network(run, method, outside))


def check_network(run: Path, method: str, outside: str, output: Path | None) -> None:
    """Writes and prints what `checks.of_network` finds. Arguments and errors are those of `localize_network`."""
    folder = _folder(run, method, outside, output)
    from sdfn_jax.heatmaps import checks  # here, as it needs jax

    with _writing(run, output):
        found, origin = checks.of_network(run, method, outside)
        check_results.write(folder, found, origin)
    print(check_results.table(found, origin))
    print(folder / check_results.CHECKS_FIGURE)


def _folder(run: Path, method: str, outside: str, output: Path | None) -> Path:
    """Returns where the files of a network go; a UserError for a choice that is not there or needs its own folder."""
    for flag, value, known, default in (
        ("method", method, cam.METHODS, cam.DEFAULT_METHOD),
        ("outside", outside, cam.OUTSIDE, cam.DEFAULT_OUTSIDE),
    ):
        if value not in known:
            raise UserError(f"--{flag}={value}: unknown; give one of {', '.join(known)}")
        if value != default and output is None:
            raise UserError(f"--{flag}={value} needs --output=FOLDER: the run's own folder is for {default}")
    if not run.is_dir():
        raise UserError(f"--run={run}: no such folder; give the folder of a trained network, such as runs/fusion")
    return output or run / "evaluation" / "test"


@contextlib.contextmanager
def _writing(run: Path, output: Path | None) -> Iterator[None]:
    """Holds the lock of the folder that is written to, and has compiled programs kept on disk."""
    from sdfn_jax.core import jit_cache, processes  # here: heatmaps from files need no jax

    jit_cache.use_cache()
    with folder_locked(output) if output else processes.writing_alone(run):
        yield


def _report(folder: Path, cases: Sequence[localization.FindingBoxes], origin: dict) -> None:
    detections.write(folder, cases, origin)
    print(table(cases, origin["method"]))
    print(folder / detections.DETECTIONS_FILE)


def of_network(run: Path, method: str, outside: str) -> tuple[list[localization.FindingBoxes], dict]:
    """Draws the boxes of a trained network (an extractor or the fusion) on the test split of its data set.

    Args:
      run: folder of the stage, `runs/fusion`.
      method: of `cam.METHODS`.
      outside: of `cam.OUTSIDE`.

    Returns:
      the cases, and where they come from.

    Raises:
      UserError: as `boxed_run.load`.
    """
    from sdfn_jax.heatmaps import boxed_run, over_split

    network = boxed_run.load(run)
    streamed = over_split.stream_mean(network.config, network.members, network.examples, method)
    pairs = zip(network.described(), streamed, strict=True)
    cases: list[localization.FindingBoxes] = []
    for example, maps in progress.bar(pairs, what="heatmaps", unit="image", total=len(network.examples)):
        cases += _of_example(network, example, maps, outside)
    choices = {method: cam.DEFAULT_METHOD, f"outside: {outside}": f"outside: {cam.DEFAULT_OUTSIDE}"}
    unusual = [choice for choice, default in choices.items() if choice != default]
    return cases, {"method": ", ".join([network.config.stage, *unusual]), "outside": outside} | network.origin


def of_files(folder: Path, tables: Path) -> tuple[list[localization.FindingBoxes], dict]:
    """Draws the boxes of another method's heatmaps.

    Args:
      folder: of `.npy` files, one for each image and finding of the official box list.
      tables: folder of the official tables.

    Raises:
      UserError: naming the first few heatmaps that are missing, or one that is not a heatmap.
    """
    references = _official_boxes(tables)
    paths = {key: folder / f"{Path(key[0]).stem}_{key[1]}.npy" for key in references}
    absent = [path.name for path in paths.values() if not path.is_file()]
    if absent:
        raise UserError(
            f"--heatmaps={folder}: {len(absent)} of {len(paths)} heatmaps are missing, such as "
            f"{', '.join(absent[:3])}; every box of the official list needs its own"
        )
    cases = []
    for (image, finding), path in progress.bar(paths.items(), what="heatmaps", unit="file"):
        patient, boxes = references[image, finding]
        heatmap = cam.rescale(cam.resize_map(_read_heatmap(path), (OFFICIAL_SIDE, OFFICIAL_SIDE)))
        cases.append(localization.locate(image, patient, finding, boxes, heatmap))
    return cases, {
        "method": folder.name,
        "outside": "",  # these heatmaps are of the whole image
        "checkpoint": "",
        "data_version": "files",
        "drawings": False,
    }


def table(cases: Sequence[localization.FindingBoxes], method: str) -> str:
    """Formats the scores for a terminal: method and floors, mean over the findings."""
    resamples = bootstrap.draw([case.patient for case in cases], 2000, _SEED)
    floor = localization.score(floors.median_floor(cases), resamples)
    lines = [
        f"Localization, {method}: mean accuracy over {len({case.finding for case in cases})} findings "
        f"({sum(len(case.references) for case in cases)} boxes), 95 % interval over patients",
        f"{'':<16}{'accuracy':>10}  {'interval':>16}{'false boxes':>13}{'median box':>12}{'random box':>12}",
    ]
    for mine, blind in zip(localization.score(cases, resamples), floor, strict=True):
        if mine.finding != "mean":
            continue
        low, high = mine.interval
        start = f"{mine.accuracy:>10.3f}  [{low:.3f}, {high:.3f}]"
        if mine.criterion == "pointing":
            lines.append(f"{'pointing game':<16}{start}{'':>13}{blind.accuracy:>12.3f}")
        else:
            random = floors.random_floor(cases, mine.criterion, mine.level, _SEED)["mean"]
            name = f"{mine.criterion} > {mine.level:g}"
            lines.append(f"{name:<16}{start}{mine.false_boxes:>13.3f}{blind.accuracy:>12.3f}{random:>12.3f}")
    return "\n".join(lines)


def _of_example(
    network: "BoxedRun", example: dict, maps: dict[str, np.ndarray], outside: str
) -> Iterator[localization.FindingBoxes]:
    size, lung_box = tuple(map(int, example["image_size"])), tuple(map(int, example["lung_box"]))
    for finding, boxes in network.boxes_of(example).items():
        own = {branch: each[..., network.findings.index(finding)] for branch, each in maps.items()}
        heatmap = cam.on_radiograph(own, lung_box, size, outside)
        yield localization.locate(example["name"], example["patient"], finding, boxes, cam.rescale(heatmap))


def _official_boxes(tables: Path) -> dict[tuple[str, str], tuple[int, np.ndarray]]:
    """Returns {(image, finding): (patient, (R, 4) boxes)} of the official list."""
    from sdfn_jax.core.faults import Faults
    from sdfn_jax.radiographs import nih_tables

    faults = Faults(skip=False)
    entries = nih_tables.read_entries(tables / nih_tables.LABEL_TABLES["2017"], "2017", faults)
    found: dict[tuple[str, str], list] = {}
    for image, boxes in nih_tables.read_boxes(tables / nih_tables.BOX_LIST, entries, faults).items():
        for box in boxes:
            found.setdefault((image, FINDINGS[box.finding]), []).append(box.box)
    return {key: (entries[key[0]].patient, np.array(boxes)) for key, boxes in found.items()}


def _read_heatmap(path: Path) -> np.ndarray:
    try:
        heatmap = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a .npy file ({error})") from error
    if heatmap.ndim != 2 or not np.isfinite(heatmap).all() or max(heatmap.shape) > OFFICIAL_SIDE:
        raise UserError(
            f"{path}: {heatmap.shape} {heatmap.dtype}; a heatmap is (height, width), at most {OFFICIAL_SIDE} a side, "
            "all finite"
        )
    return heatmap
