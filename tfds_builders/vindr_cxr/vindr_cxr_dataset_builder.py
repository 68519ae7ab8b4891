"""VinDr-CXR, Hospital 108 and Hanoi Medical University Hospital: PA radiographs, each read by radiologists."""

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from sdfn_jax.core import tables
from sdfn_jax.radiographs import labels
from tfds_builders import film_tables, labelled_films
from tfds_builders.film_tables import Row

# {name in the tables: the finding's name in ChestX-ray14}
_NAMES = {"Pleural effusion": "Effusion", "Pleural thickening": "Pleural_Thickening", "Pulmonary fibrosis": "Fibrosis"}
_NO_FINDINGS = {
    tables.column_key(name) for name in ("image_id", "rad_id", "No finding", "Other disease", "Other diseases")
}
_SPLITS = {"train": labelled_films.TRAIN_VAL, "test": "test"}
_READERS = 3  # of a film of train; those of test are a consensus
_KAGGLE = "train.csv"
_EDGES = ("x_min", "y_min", "x_max", "y_max")
_BOX = {name: () for name in ("image_id", "class_name", *_EDGES)}


class Builder(film_tables.TableBuilder):
    """DatasetBuilder for `vindr_cxr`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = "https://physionet.org/content/vindr-cxr/1.0.0/"
    BOXES = True
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir is the folder of the download: image_labels_train.csv, image_labels_test.csv, annotations_train.csv and
annotations_test.csv (in it or in annotations/), and the films (train/*.dicom, test/*.dicom, or copies of these names);
or Kaggle's train.csv with its films. All films or some."""

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the official tables, or of Kaggle's."""
        if (manual_dir / _KAGGLE).is_file():
            return {_KAGGLE: manual_dir / _KAGGLE}
        names = [f"{kind}_{split}.csv" for kind in ("image_labels", "annotations") for split in _SPLITS]
        return {name: film_tables.first_there((manual_dir / name, manual_dir / "annotations" / name)) for name in names}

    def _read_rows(self, manual_dir: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
        self._index_by_name(manual_dir)
        paths = self.tables(manual_dir)
        if _KAGGLE in paths:
            return self._read_kaggle(paths[_KAGGLE])
        table = film_tables.known_table(paths["image_labels_train.csv"])
        columns = [
            name for name in tables.column_names(table, {"image_id": ()}) if tables.column_key(name) not in _NO_FINDINGS
        ]
        return tuple(map(_name, columns)), self._rows(paths, columns)

    def _rows(self, paths: dict[str, Path], columns: Sequence[str]) -> Iterator[Row]:
        for split in _SPLITS:
            votes: dict[str, list[np.ndarray]] = collections.defaultdict(list)
            sources: dict[str, str] = {}
            table = paths[f"image_labels_{split}.csv"]
            for source, record in self._records(table, {"image_id": (), **dict.fromkeys(columns, ())}):
                image = record["image_id"]
                sources.setdefault(image, source)
                with self._fault(image, source):
                    votes[image].append(np.array([_vote(record[name], name) for name in columns], np.uint8))
            boxes = self._read_boxes(paths[f"annotations_{split}.csv"], list(map(_name, columns)))
            for image, some in votes.items():
                yield self._row(image, sources[image], np.stack(some), _SPLITS[split], boxes[image])

    def _read_kaggle(self, table: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
        """Kaggle's table has a row for each box of each reader, or `No finding`, and no test labels."""
        records = list(self._records(table, _BOX | {"rad_id": ()}))
        classes = {record["class_name"] for _, record in records if tables.column_key(record["class_name"])}
        findings = tuple(sorted(_name(name) for name in classes if tables.column_key(name) not in _NO_FINDINGS))
        boxes = self._read_boxes(table, findings)
        voices: dict[str, dict[str, set[str]]] = collections.defaultdict(lambda: collections.defaultdict(set))
        sources: dict[str, str] = {}
        for source, record in records:
            sources.setdefault(record["image_id"], source)
            voices[record["image_id"]][record["rad_id"]].add(_name(record["class_name"]))
        rows = (
            self._row(
                image,
                sources[image],
                np.array([[finding in said for finding in findings] for said in by_reader.values()], np.uint8),
                None,
                boxes[image],
            )
            for image, by_reader in voices.items()
        )
        return findings, rows

    def _row(self, image: str, source: str, votes: np.ndarray, split: str | None, boxes: list) -> Row:
        """Returns the row of a film: present by a majority of its readers, uncertain by fewer, absent by none."""
        count = votes.sum(axis=0)
        codes = np.select([2 * count > len(votes), count > 0], [labels.PRESENT, labels.UNCERTAIN], labels.ABSENT)
        return Row(image, source, codes.astype(np.uint8), patient=image, split=split, view="PA", boxes=tuple(boxes))

    def _read_boxes(self, table: Path, findings: Sequence[str]) -> dict[str, list]:
        """Returns {image: its boxes}, those of all readers."""
        boxes = collections.defaultdict(list)
        for source, record in self._records(table, _BOX):
            name = _name(record["class_name"])
            if name not in findings or not record["x_min"]:
                continue
            with self._fault(record["image_id"], source):
                edges = tuple(tables.number(record[edge]) for edge in _EDGES)
                boxes[record["image_id"]].append((findings.index(name), edges))
        return boxes


def _name(column: str) -> str:
    return _NAMES.get(column, column).replace("/", " or ")


def _vote(text: str, name: str) -> int:
    if (plain := text.removesuffix(".0")) not in ("0", "1"):
        raise ValueError(f"{name} is {tables.shown(text)}; expected 0 or 1")
    return int(plain)
