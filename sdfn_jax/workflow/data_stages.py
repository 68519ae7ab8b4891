"""Stages that make data: synthetic radiographs for the demo, and prepared data sets."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sdfn_jax.core import processes
from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs import findings, synthetic_dataset
from sdfn_jax.workflow.planning import THERE, TO_DO, Stage, Status, begun
from tfds_builders import freshness, prepare, registry
from tfds_builders.prepared import prepared_directory


class SyntheticRadiographs(Stage):
    """The demo's films, in the official formats of JSRT and ChestX-ray14."""

    name = "synthetic radiographs"

    def __init__(self, config: ConfigDict):
        """Takes `config.synthetic`."""
        self.writes = Path(config.folder)
        self.reads = f"{config.jsrt_films} films with lung masks, {config.chestxray14_films} with findings"
        self._jsrt = {"films": config.jsrt_films, "seed": config.seed}
        self._chestxray14 = {
            "films": config.chestxray14_films,
            "seed": config.seed,
            "test_share": config.test_share,
        }

    def expected(self, data: ConfigDict) -> Mapping[str, int]:
        """Returns {split: films} of one of its data sets, about as many as there will be."""
        if data.name != "chestxray14":
            return {"all": self._jsrt["films"]}
        films = self._chestxray14["films"]
        test = round(films * self._chestxray14["test_share"])
        validation = round((films - test) * data.validation_share)
        return {"train": films - test - validation, "validation": validation, "test": test}

    def _look(self) -> Status:
        drawn = [
            _is_drawn(self.writes / "jsrt", self._jsrt),
            _is_drawn(self.writes / "chestxray14", self._chestxray14),
        ]
        return Status(THERE if all(drawn) else TO_DO)

    def run(self) -> None:
        """Draws what is missing."""
        synthetic_dataset.write_jsrt(self.writes / "jsrt", **self._jsrt)
        synthetic_dataset.write_chestxray14(self.writes / "chestxray14", **self._chestxray14)


class FoundData:
    """The state of a data set before anything runs: the user's download and the prepared set.

    Attributes:
      data: the data set's config.
      boxes: its table of lung boxes, which need not exist; None for a set without any.
      synthetic: the stage that draws the download, in a list; empty if nothing does.
    """

    def __init__(self, data: ConfigDict, boxes: Path | None, synthetic: Sequence[SyntheticRadiographs] = ()):
        """Reads nothing yet."""
        self.data, self.boxes = data, boxes
        self.synthetic = [stage for stage in synthetic if Path(data.manual_dir).is_relative_to(stage.writes)]

    @property
    def options(self) -> dict[str, Any]:
        """What `prepare` takes besides name and folders."""
        names = ("size", "require_complete", "skip_bad_files", *registry.DATA_SETS[self.data.name].settings)
        options = {name: self.data[name] for name in names}
        return options if self.boxes is None else options | {"boxes": self.boxes}

    @property
    def comes_later(self) -> bool:
        """Whether the films are still to be drawn; only then is it known whether a prepared set fits them."""
        return any(not stage.there for stage in self.synthetic)

    @functools.cached_property
    def look(self) -> prepare.Look:
        """The prepared set and the download, compared."""
        look = functools.partial(
            prepare.look,
            self.data.name,
            manual_dir=self.data.manual_dir,
            data_dir=self.data.data_dir,
            **self.options,
        )
        if processes.several():
            processes.by_first(look)  # so that the others need not read and compare the same files
        return look()

    def films(self) -> dict[str, Path]:
        """Returns {name: file} of the set's films as they are now, sorted by name.

        Raises:
          UserError: if there is none, or for a table that the user must fix.
        """
        builder = prepare.make_builder(self.data.name, Path(self.data.data_dir, ".looking"), **self.options)
        return dict(sorted(builder.films(Path(self.data.manual_dir)).items()))

    @property
    def prepared(self) -> freshness.Freshness | None:
        """The prepared set; None if there is none, or if its films are still to be drawn."""
        return None if self.comes_later else self.look.prepared

    @property
    def is_fresh(self) -> bool:
        """Whether the prepared set is there and is what would be prepared now."""
        return self.prepared is not None and not self.prepared.differences

    @property
    def is_synthetic(self) -> bool:
        """Whether the films are, or will be, synthetic."""
        return self.comes_later or synthetic_dataset.is_synthetic(Path(self.data.manual_dir))


class PreparedDataSet(Stage):
    """A prepared data set; it is prepared again if that spoils no trained run."""

    def __init__(self, found: FoundData, flag: str, readers: list[ConfigDict], table: Any = None):
        """Makes the stage.

        Args:
          found: what there is.
          flag: how the command line names the data set's config.
          readers: configs of the stages that are trained on it.
          table: the `BoxTable` stage that makes its lung boxes; None if none does.
        """
        self.found, self._flag, self._readers, self._table = found, flag, readers, table
        data = found.data
        self.name = f"data set {data.name}"
        self.reads = ", ".join(map(str, filter(None, (data.get("table") or data.manual_dir, found.boxes))))
        self.writes = prepared_directory(data)
        self.needs = [*found.synthetic, *([] if table is None else [table])]

    @property
    def counts(self) -> Mapping[str, int]:
        """{split: films}; empty if that is not known yet."""
        if self.found.is_fresh:
            return {split: each["images"] for split, each in self.found.prepared.metadata["splits"].items()}
        if self.found.comes_later or self._conflict() or self.missing():
            return {}
        return self.found.look.counts

    @property
    def findings(self) -> tuple[str, ...]:
        """What the set labels, in its order; empty if that is not known yet."""
        if self.found.is_fresh:
            return findings.named_in(self.found.prepared.metadata)
        return () if self.found.comes_later else self.found.look.findings

    @property
    def expected(self) -> Mapping[str, int]:
        """{split: films}, of films that are still to be drawn about as many as there will be."""
        synthetic = self.found.synthetic
        return synthetic[0].expected(self.found.data) if self.found.comes_later else self.counts

    def _look(self) -> Status:
        found, manual_dir = self.found, self.found.data.manual_dir
        named = found.data.get("boxes")
        conflicts = self._conflict()
        if named and not Path(named).is_file():
            conflicts.insert(0, f"the box table {self._flag}.boxes={named}: no such file")
        if found.is_fresh:
            known = manual_dir if Path(manual_dir).is_dir() else None
            notes = (_counted(found.prepared.metadata.get("source", known), self.counts), *found.prepared.notes)
            if self._table is not None and self._table.made_again:
                return Status(TO_DO, (*notes, "prepared again: its lung boxes are made again"), tuple(conflicts))
            return Status(THERE, notes, tuple(conflicts))
        if not self.counts:
            return Status(TO_DO, (), tuple(conflicts))
        again = [] if found.prepared is None else [f"prepared again: {'; '.join(found.prepared.differences)}"]
        return Status(TO_DO, (_counted(manual_dir, self.counts), *again), tuple(conflicts))

    def _conflict(self) -> list[str]:
        prepared = self.found.prepared
        trained = begun(self._readers) if prepared is not None and prepared.differences else []
        if not trained:
            return []
        return [
            f"{self.writes} is not what would be prepared from {self.found.data.manual_dir} now: "
            f"{'; '.join(prepared.differences)}. {', '.join(trained)} started with it as it is. To keep what was "
            f"trained, restore the files and settings, or say where they are ({self._flag}.manual_dir=FOLDER). To "
            f"train on what is there now, give new folders ({self._flag}.data_dir=FOLDER, and workdir of these "
            "stages), or delete these runs."
        ]

    def missing(self) -> list[str]:
        """Returns what is missing in the download."""
        data, flag = self.found.data, self._flag
        if self.found.comes_later or self.found.is_fresh or self._conflict():
            return []
        if not Path(data.manual_dir).is_dir() and "table" not in data:
            problem = (
                f"the {data.name} download: no folder {data.manual_dir}. Put or link it there, or say where it is: "
                f"{flag}.manual_dir=FOLDER. tfds_builders/{data.name}/README.md says where to get it."
            )
        elif self.found.look.problem is not None:
            whose = "your data" if "table" in data else f"the {data.name} download"
            problem = f"{whose}: {self.found.look.problem}"
        else:
            return []
        instead = registry.DATA_SETS[data.name].open_alternative
        if instead is None:
            return [problem]
        return [
            problem,
            f"{data.name.upper()} needs a registration; open data work as well: "
            f"{flag}.name={instead} {flag}.manual_dir=FOLDER",
        ]

    def run(self) -> None:
        """Prepares the set."""
        data = self.found.data
        prepare.prepare(data.name, manual_dir=data.manual_dir, data_dir=data.data_dir, **self.found.options)


def box_table_of(config: ConfigDict) -> Path | None:
    """Returns the box table of a stage's data set, which need not exist; None for the lung region generator's."""
    if config.stage == "lrg":
        return None
    return Path(config.data.boxes) if config.data.boxes else Path(config.lrg.workdir) / "lung_boxes.csv"


def check_prepared(config: ConfigDict) -> Path:
    """Returns the folder of a stage's prepared data set, for modes that make nothing.

    Raises:
      UserError: if it is missing, or is not what would be prepared now; with the command that prepares it.
    """
    data, directory = config.data, prepared_directory(config.data)
    found = FoundData(data, box_table_of(config))
    command = (
        f"python -m tfds_builders.prepare {data.name} --manual_dir={data.manual_dir} --data_dir={data.data_dir} "
        f"--size={data.size}" + "".join(f" --{name}={value}" for name, value in _unusual(found).items())
    )
    if found.prepared is None:
        raise UserError(f"the prepared data set {directory} is missing; make it: {command}")
    if found.prepared.differences:
        raise UserError(
            f"{directory} is not what would be prepared from {data.manual_dir} now: "
            f"{'; '.join(found.prepared.differences)}. Restore the files and settings, or prepare it again: {command}"
        )
    for note in found.prepared.notes:
        print(f"{directory}: {note}")
    return directory


def _unusual(found: FoundData) -> dict[str, Any]:
    """Returns the settings with which `prepare` makes a data set other than by default."""
    settings = registry.DATA_SETS[found.data.name].settings
    return {name: value for name, value in found.options.items() if name in settings and value != settings[name]}


def _is_drawn(folder: Path, settings: dict) -> bool:
    if not synthetic_dataset.is_synthetic(folder):
        return False
    found = synthetic_dataset.read_settings(folder, settings)
    for name, value in settings.items():
        if found[name] != value:
            raise UserError(
                f"{folder} holds synthetic radiographs with {name} = {found[name]}, but {value} was requested. "
                "What was made from them would not fit new ones: use the settings they were drawn with, or new folders "
                "for everything (--config.synthetic.folder, manual_dir, data_dir, workdir)."
            )
    return synthetic_dataset.is_whole(folder)


def _counted(source: str | None, counts: Mapping[str, int]) -> str:
    splits = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    films = f"{sum(counts.values()):,} films ({splits})"
    return films if source is None else f"from {source}: {films}"
