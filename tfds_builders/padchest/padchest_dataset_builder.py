"""PadChest, Hospital San Juan de Alicante: frontal radiographs with labels of their reports."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from sdfn_jax.core import tables
from sdfn_jax.radiographs import labels
from sdfn_jax.radiographs.findings import FINDINGS
from tfds_builders import film_tables, table_values
from tfds_builders.film_tables import Row

_TABLES = tuple(f"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv{packed}" for packed in ("", ".gz"))
_COLUMNS = {
    name: ()
    for name in ("ImageID", "ImageDir", "StudyDate_DICOM", "PatientID", "PatientBirth", "PatientSex_DICOM")
    + ("Projection", "Labels")
}
# {finding: labels that stand for it}. A label counts as a whole: `pseudonodule` is no nodule, `pericardial effusion` no
# pleural one, `subcutaneous emphysema` not of the lung, `mediastinal mass`, `soft tissue mass` not in it.
_LABELS = {
    "Atelectasis": ["atelectasis"]
    + [f"{kind} atelectasis" for kind in ("laminar", "lobar", "segmental", "round", "total")]
    + ["atelectasis basal"],
    "Cardiomegaly": ["cardiomegaly"],
    "Effusion": ["pleural effusion", "loculated pleural effusion", "loculated fissural effusion"],
    "Infiltration": ["infiltrates"],
    "Mass": ["mass", "pulmonary mass"],
    "Nodule": ["nodule", "multiple nodules"],
    "Pneumonia": ["pneumonia", "atypical pneumonia"],
    "Pneumothorax": ["pneumothorax", "hydropneumothorax"],
    "Consolidation": ["consolidation"],
    "Edema": ["pulmonary edema"],
    "Emphysema": ["emphysema"],
    "Fibrosis": ["pulmonary fibrosis"],
    "Pleural_Thickening": ["pleural thickening", "apical pleural thickening", "calcified pleural thickening"],
    "Hernia": ["hiatal hernia"],
}
_MEANT = {label: FINDINGS.index(finding) for finding, some in _LABELS.items() for label in some}
_FRONTAL = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP"}
_OTHERS = {"L": table_values.LATERAL, "COSTAL": "a view of the ribs"}
_LEFT_OUT = {"exclude": "excluded by its owners", "suboptimal study": "a suboptimal study"}


class Builder(film_tables.TableBuilder):
    """DatasetBuilder for `padchest`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = "https://bimcv.cipf.es/bimcv-projects/padchest/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir holds PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv (or .csv.gz), and the PNG files in the folders of
the unpacked archives (0/, 1/, ...), or in one folder; all films or some."""

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the official table."""
        path = film_tables.first_there(manual_dir / name for name in _TABLES)
        return {path.name: path}

    def _read_rows(self, manual_dir: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
        (table,) = self.tables(manual_dir).values()
        self._index_by_name(manual_dir)
        return FINDINGS, self._rows(table)

    def _rows(self, table: Path) -> Iterator[Row]:
        for source, record in self._records(table, _COLUMNS, several_lines=True):
            record |= {name: "" for name, text in record.items() if text in ("nan", "None")}
            with self._fault(record["ImageID"], source):
                named = _named(record["Labels"])
                view = _FRONTAL.get(record["Projection"], "")
                reasons = [reason for label, reason in _LEFT_OUT.items() if label in named]
                if not view:
                    reasons = [_OTHERS.get(record["Projection"], "an unknown view")]
                if not named:
                    reasons.append("no labels")
                yield Row(
                    record["ImageID"],
                    source,
                    labels=_codes(named),
                    patient=record["PatientID"],
                    sex=table_values.sex_of(record["PatientSex_DICOM"]),
                    age=_age(record["StudyDate_DICOM"], record["PatientBirth"]),
                    view=view,
                    left_out=reasons[0] if reasons else "",
                )


@functools.cache  # most films have one of few lists
def _named(text: str) -> tuple[str, ...]:
    """Returns the labels of a row, which is a Python list as text, its entries with stray blanks."""
    if not text:
        return ()
    try:
        return tuple(label.strip() for label in ast.literal_eval(text) if label.strip())
    except (ValueError, SyntaxError, AttributeError, TypeError):
        raise ValueError(f"Labels is {tables.shown(text)}; expected a list such as ['nodule', 'scoliosis']") from None


@functools.cache
def _codes(named: tuple[str, ...]) -> np.ndarray:
    """Returns the labels, (14,) uint8; an `unchanged` film has what an earlier one had: the rest is unknown."""
    codes = np.full(len(FINDINGS), labels.UNKNOWN if "unchanged" in named else labels.ABSENT, np.uint8)
    codes[[_MEANT[label] for label in named if label in _MEANT]] = labels.PRESENT
    return codes


def _age(study_date: str, birth: str) -> float:
    """Returns the years between the year of birth and that of the study; NaN if one is unknown."""
    if not study_date or not birth:
        return float("nan")
    return max(0.0, float(int(study_date[:4]) - tables.whole_number(birth)))
