"""MIMIC-CXR-JPG, Beth Israel Deaconess Medical Center: frontal radiographs with labels mined from reports."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from sdfn_jax.radiographs import labels
from tfds_builders import chexpert_labels, film_tables, table_values
from tfds_builders.film_tables import Row

_LABELERS = ("chexpert", "negbio")
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}
_FILMS: dict[str, tuple[str, ...]] = {"dicom_id": (), "subject_id": (), "study_id": (), "ViewPosition": ()}
_STUDY: dict[str, tuple[str, ...]] = {"study_id": ()}
_SPLIT = {"dicom_id": (), "split": ()}
_NONE = np.full(len(chexpert_labels.CHEXPERT_FINDINGS), labels.UNKNOWN, np.uint8)


class Builder(film_tables.TableBuilder):
    """DatasetBuilder for `mimic_cxr`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = "https://physionet.org/content/mimic-cxr-jpg/2.1.0/"
    CONFIG_SETTINGS = {"labeler": _LABELERS}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir is the folder of the download: mimic-cxr-2.0.0-metadata.csv.gz, -split.csv.gz, -chexpert.csv.gz (or
-negbio.csv.gz), unpacked or not, and files/p10/p10000032/s50414267/*.jpg; all films or some."""

    @staticmethod
    def config(  # type: ignore[override]  # with its own settings
        size: int | None = None, labeler: str = _LABELERS[0]
    ) -> film_tables.TableConfig:
        """Returns the configuration for a size in pixels, 224 if None, and the program that labelled the reports."""
        return film_tables.config(size, labeler=labeler)

    BUILDER_CONFIGS = [film_tables.config(labeler=_LABELERS[0])]

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {what it holds: path} of the official tables."""
        names = {"films": "metadata", "splits": "split", "labels": self.builder_config.choices["labeler"]}
        return {
            what: film_tables.first_there(
                manual_dir / f"mimic-cxr-{version}-{name}.csv{packed}"
                for version in ("2.0.0", "2.1.0")
                for packed in (".gz", "")
            )
            for what, name in names.items()
        }

    @property
    def _label_version(self) -> str:
        return f"{self.name} {self.builder_config.choices['labeler']}"

    def _read_rows(self, manual_dir: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
        return chexpert_labels.CHEXPERT_FINDINGS, self._rows(manual_dir)

    def _rows(self, manual_dir: Path) -> Iterator[Row]:
        tables = self.tables(manual_dir)
        splits = {record["dicom_id"]: record["split"] for _, record in self._records(tables["splits"], _SPLIT)}
        by_study = {}
        for source, record in self._records(tables["labels"], _STUDY | chexpert_labels.COLUMNS):
            with self._fault(record["study_id"], source):
                by_study[record["study_id"]] = chexpert_labels.codes(record)
        for source, record in self._records(tables["films"], _FILMS):
            subject, study, film = record["subject_id"], record["study_id"], record["dicom_id"]
            name = f"files/p{subject[:2]}/p{subject}/s{study}/{film}.jpg"
            view = table_values.frontal(record["ViewPosition"], unknown_is_frontal=False)
            if study not in by_study and not view["left_out"]:
                view["left_out"] = "its study has no labels"
            with self._fault(name, source):
                if splits.get(film) not in _SPLITS:
                    raise ValueError(f"{film} has no split in {tables['splits']}")
                yield Row(name, source, by_study.get(study, _NONE), f"p{subject}", _SPLITS[splits[film]], **view)
