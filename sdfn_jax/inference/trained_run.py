"""What a trained run brings to its readings: its lung region generator, its calibration, and its provenance."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import checkpoint, ensemble, networks, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.inference import one_file
from sdfn_jax.inference.prediction import Provenance
from sdfn_jax.lungs.finder import LungFinder
from sdfn_jax.lungs.lung_boxes import PostProcessing
from sdfn_jax.metrics import calibration as metrics_calibration
from sdfn_jax.metrics.evaluation import STAGES, evaluation_command, software
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.radiographs import findings as radiographs_findings


def stage_of(run: Path) -> str | None:
    """Returns the stage of the trained classifier in a folder; None if there is none."""
    metadata = networks.metadata(run)
    return metadata["stage"] if metadata is not None and metadata["stage"] in STAGES else None


def lung_finder(run: str | Path, config: dict, named: str | Path | None, batch_size: int) -> LungFinder | None:
    """Loads the lung region generator of a classifier, with the post-processing that its training data had."""
    place = lrg_folder(run, config) if named is None else named
    if place is None:
        return None
    found = LungFinder.load(place, batch_size)
    if "lrg" not in config:
        return found
    return dataclasses.replace(found, postprocessing=PostProcessing(**config["lrg"]["postprocessing"]))


def lrg_folder(run: str | Path, config: dict) -> Path | None:
    """Returns where the lung region generator of a classifier is; None if it is neither found nor needed."""
    if (found := ensemble.read(run)) is not None:
        run = found.members[0].run  # whose config it is
    places = [Path(run).absolute().parent / one_file.lrg_folder_name(config)]
    # The config's own path may be relative. If it leads to the run too, it leads to what the run was trained with;
    # elsewhere it would lead to the generator of whoever is at work in this folder.
    if "lrg" in config and Path(config["workdir"]).resolve() == Path(run).resolve():
        places.insert(0, Path(config["lrg"]["workdir"]))
    for place in places:
        if checkpoint.best_metadata(place) is not None:
            return place
    if "lung" not in config["branches"]:
        return None
    raise UserError(
        f"{run}: this network reads the lung region, and its lung region generator was not found; looked for a trained "
        f"one in {' and '.join(dict.fromkeys(map(str, places)))}. Name its folder: --lrg=FOLDER"
    )


def calibration_of(run: str | Path, metadata: dict) -> tuple[metrics_calibration.Record | None, str]:
    """Returns the run's calibration, or None and why."""
    found, why = metrics_calibration.of_checkpoint(run, metadata["digest"])
    if found is not None:
        return found, ""
    command = evaluation_command(run, "validation", metadata["config"])
    return None, (
        "neither calibrated probabilities nor operating points: "
        f"{Path(run) / metrics_calibration.CALIBRATION_FILE} {why}. Make it: {command}"
    )


def provenance(metadata: dict, lungs: LungFinder | None, calibration: metrics_calibration.Record | None) -> Provenance:
    """Returns what the readings of a classifier are made with.

    Args:
      metadata: of its checkpoint.
      lungs: its lung region generator, if it has one.
      calibration: of its probabilities, if there is one.
    """
    training, findings = run_metadata.read(metadata), radiographs_findings.named_in(metadata)
    return Provenance(
        stage=metadata["config"]["stage"],
        checkpoint=metadata["digest"],
        lrg_checkpoint=None if lungs is None else lungs.segmenter.digest,
        findings=findings,
        data_version=training.data_version,
        label_version=training.label_version,
        drawings=training.drawings,
        imported=training.imported,
        preprocessing=Preprocessing.of(metadata["config"]).as_dict(),
        thresholds={} if calibration is None else calibration.thresholds(),
        undecided=_undecided(calibration, findings),
        calibrated=() if calibration is None else calibration.calibrated(),
        validation={} if calibration is None else calibration.validation(),
        no_better_than_chance="" if calibration is None else calibration.no_better_than_chance(),
        software=_software(),
        members=tuple(metadata.get(networks.MEMBERS, ())),
    )


def provenance_of_lungs(lungs: LungFinder) -> Provenance:
    """Returns what the readings of a lung region generator alone are made with."""
    return Provenance(
        stage=None,
        checkpoint=None,
        lrg_checkpoint=lungs.segmenter.digest,
        findings=(),
        data_version=None,
        label_version=None,
        drawings=lungs.segmenter.drawings,
        imported={},
        preprocessing={},
        thresholds={},
        undecided={},
        calibrated=(),
        validation={},
        no_better_than_chance="",
        software=_software(),
    )


def _undecided(calibration: metrics_calibration.Record | None, findings: Sequence[str]) -> dict[str, str]:
    if calibration is not None:
        return calibration.undecided()
    return dict.fromkeys(findings, "the checkpoint carries no operating points")


def _software() -> dict[str, str]:
    return {name: version for name, version in software().items() if version is not None}
