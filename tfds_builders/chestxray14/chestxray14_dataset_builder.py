"""NIH ChestX-ray14, each image entire and as its lung region."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs import find, nih_tables
from sdfn_jax.radiographs.findings import FINDINGS
from tfds_builders import base, labelled_films

_DEFAULT_LABELS = "2017"


@dataclasses.dataclass(eq=False, kw_only=True)
class ChestXray14Config(tfds.core.BuilderConfig):
    """A configuration: height and width of the two images in pixels, and the version of the label table."""

    size: int
    label_version: str


def config(size: int | None = None, label_version: str = _DEFAULT_LABELS) -> ChestXray14Config:
    """Returns the configuration for images of `size` x `size` pixels and a version of the labels.

    Args:
      size: 224 if None.
      label_version: `2017` or `v2020`.
    """
    size = size or labelled_films.DEFAULT_SIZE
    return ChestXray14Config(
        name=f"size{size}_labels{label_version}",
        description=f"Images of {size} x {size} pixels, labels of {nih_tables.LABEL_TABLES[label_version]}.",
        size=size,
        label_version=label_version,
    )


@dataclasses.dataclass(frozen=True)
class Radiograph(labelled_films.LabelledFilm):
    """An available image, and what the tables say about it."""

    entry: nih_tables.Entry
    reference_boxes: tuple[nih_tables.ReferenceBox, ...]


class Builder(labelled_films.LabelledFilmsBuilder):
    """DatasetBuilder for `chestxray14`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    CONFIG_SETTINGS = {"label_version": tuple(nih_tables.LABEL_TABLES)}
    BUILDER_CONFIGS = [config()]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir holds the PNG files (all or some; next to the tables, or in any folders: images/, images_001/images/), and
Data_Entry_2017.csv or Data_Entry_2017_v2020.csv, BBox_List_2017.csv, train_val_list.txt and test_list.txt of the NIH,
and, unless --boxes names another one, lung_boxes.csv, the table of lung boxes."""

    config = staticmethod(config)  # type: ignore[assignment]  # with its own settings

    def summary(self, metadata: dict[str, Any]) -> list[str]:
        """Returns how the label version was recognised, and how many files the label table does not name."""
        images = metadata["images_that_tell_the_labels"]
        reason = (
            f"recognised by {images:,} images that the versions label differently"
            if images
            else "as requested: nothing in the table distinguishes the versions"
        )
        lines = [base.summary_line("labels", metadata["label_version"], f", {reason}")]
        if metadata["unknown"]:
            unknown = f"{metadata['unknown']:,}"
            lines.append(base.summary_line("unknown", unknown, " PNG files that the label table does not name"))
        return lines

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        square = {"shape": (size, size), "dtype": np.uint8, "encoding": "bytes"}
        features = tfds.features
        return self.dataset_info_from_configs(
            homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
            metadata=tfds.core.MetadataDict(),
            features=features.FeaturesDict(
                {
                    "name": features.Text(doc="file name"),
                    "entire": features.Tensor(doc="the whole radiograph, bones bright", **square),
                    "lung": features.Tensor(doc="its lung region, cut at full resolution", **square),
                    "labels": features.Tensor(shape=(len(FINDINGS),), dtype=np.uint8, doc=", ".join(FINDINGS)),
                    "patient": features.Scalar(np.int32, doc="number of the patient"),
                    "age": features.Scalar(np.float32, doc="years"),
                    "sex": features.Text(doc="M or F"),
                    "view_position": features.Text(doc="PA or AP"),
                    "follow_up": features.Scalar(np.int32, doc="number of the patient's radiograph, from 0"),
                    "image_size": features.Tensor(shape=(2,), dtype=np.int32, doc="height, width of the file"),
                    "original_size": features.Tensor(
                        shape=(2,), dtype=np.int32, doc="height, width before NIH reduced it"
                    ),
                    "lung_box": features.Tensor(
                        shape=(4,), dtype=np.int32, doc="left, top, right, bottom; pixels of the file, half-open"
                    ),
                    "lung_rule": features.Text(doc="the post-processing rules (B.2.2) that made the box"),
                    "reference_boxes": features.Sequence(
                        {
                            "finding": features.Scalar(np.int32, doc="place in labels"),
                            "box": features.Tensor(
                                shape=(4,), dtype=np.float32, doc="left, top, right, bottom; pixels of the file"
                            ),
                        }
                    ),
                }
            ),
        )

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the official tables; the lung boxes are not among them."""
        labels = nih_tables.LABEL_TABLES[self.builder_config.label_version]
        names = (labels, nih_tables.BOX_LIST, nih_tables.TRAIN_VAL_LIST, nih_tables.TEST_LIST)
        return {name: manual_dir / name for name in names}

    def _read_folder(self, manual_dir: Path) -> labelled_films.Folder:
        below = find.below(manual_dir)
        pictures = [path for path in below.films if path.suffix == ".png"]
        entry_table = self.tables(manual_dir)[nih_tables.LABEL_TABLES[self.builder_config.label_version]]
        looked = f"in {manual_dir} and all folders below it"
        if not pictures and not entry_table.is_file():
            raise base.NothingFoundError(f"no PNG file and no {entry_table.name} was found {looked}")
        for version, other in nih_tables.LABEL_TABLES.items():
            if not entry_table.is_file() and (manual_dir / other).is_file():
                its = config(label_version=version).name
                raise UserError(
                    f"{entry_table} is missing, but {other} is there: put the first next to it, or take the labels of "
                    f"the second with --label_version={version} (tfds build: --config={its})"
                )
        entries = nih_tables.read_entries(entry_table, self.builder_config.label_version, self._faults)
        reference_boxes = nih_tables.read_boxes(manual_dir / nih_tables.BOX_LIST, entries, self._faults)
        train_val, test = nih_tables.read_lists(manual_dir, entries)
        for name in sorted(entries.keys() - train_val - test):
            self._faults.report(name, f"{entry_table}: {name} is in neither official list")
        named = [path for path in pictures if path.name in entries]
        if not named:
            raise base.NothingFoundError(
                f"no image file named in {entry_table} was found; looked for {next(iter(entries), 'PNG files')} and "
                f"{max(0, len(entries) - 1):,} others {looked}; found {len(below.films):,} pictures of other names"
                + (f", first {below.films[0]}" if below.films else "")
            )
        found, different, copies = find.by_name(named)
        for first, second in different:
            self._faults.report(first.name, f"{second} is not the same file as {first}; keep one")
        read = {self._box_table(manual_dir), *self.tables(manual_dir).values()}
        left_out = [each for each in (*below.left_out, *copies) if each.path not in read]
        films = {
            name: Radiograph(
                name,
                found[name],
                str(entry.patient),
                "test" if name in test else labelled_films.TRAIN_VAL,
                entry,
                tuple(reference_boxes.get(name, ())),
            )
            for name, entry in entries.items()
            if name in found
        }
        return labelled_films.Folder(
            films=films,
            missing=[(name, "radiograph") for name in entries if name not in found],
            left_out=left_out,
            findings=FINDINGS,
            metadata={
                "label_version": self.builder_config.label_version,
                "images_that_tell_the_labels": len(nih_tables.revealing(manual_dir, entries)),
                "unknown": len(pictures) - len(named),
            },
        )

    def _describe(self, film: Radiograph, height: int, width: int) -> dict[str, Any]:
        return {
            "labels": film.entry.labels,
            "patient": film.entry.patient,
            "age": film.entry.age,
            "sex": film.entry.sex,
            "view_position": film.entry.view_position,
            "follow_up": film.entry.follow_up,
            "original_size": np.array(film.entry.original_size, np.int32),
            "reference_boxes": [
                {
                    "finding": reference.finding,
                    "box": labelled_films.inside(reference.box, width, height, reference.source),
                }
                for reference in film.reference_boxes
            ],
        }
