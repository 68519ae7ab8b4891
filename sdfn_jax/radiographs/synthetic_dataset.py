"""Synthetic data sets: films of `synthetic_film` in the official formats of JSRT with SCR and of ChestX-ray14.

The real builders and the real pipeline run on these folders. Findings are distributed evenly and are far more frequent
than in patients; age, sex, view and recorded size are random and leave no trace in the image. A film depends
only on its seed and number: all cores draw in parallel, and `film.draw()` gives its lung masks and boxes at any time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import bring_back, folder_appears_when_complete, locked
from sdfn_jax.core.parallel import map_in_order
from sdfn_jax.core.progress import bar
from sdfn_jax.radiographs import synthetic_film
from sdfn_jax.radiographs.findings import FINDINGS, NO_FINDING
from sdfn_jax.radiographs.reader import JSRT_MAXIMUM, JSRT_SIDE
from sdfn_jax.radiographs.synthetic_film import Drawing, draw

# Increase it with every change to the drawings: folders of an older version are then drawn again.
# tests/test_synthetic.py fails if a film changes and this does not.
DRAWING_VERSION = 1
_SETTINGS_FILE, _OLD_SETTINGS_FILE = "synthetic.json", "phantom.json"  # the second by sdfn_jax 0.1.0
# The findings with boxes in BBox_List_2017.csv, and the one that it spells differently.
BOXED_FINDINGS = FINDINGS[:8]
_BOX_SPELLING = {"Infiltration": "Infiltrate"}
_FINDINGS_PER_FILM = (0.25, 0.25, 0.3, 0.2)  # shares of films with 0, 1, 2, 3 findings
_MOST_FILMS_OF_A_PATIENT = 4
_LABEL_LOST = 0.1  # share of the boxes whose label only the v2020 table has; officially 188 of 984
_RGBA_EVERY = 40  # officially about 1 in 100; more often here, so that small sets have one
_PNG_LEVEL = 1  # a fifth of the default's time, files a sixth larger
_COMMON_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
# Recorded width, height and pixel spacing, mm; the v2020 table prints the spacing as a computer stores it.
_DETECTORS = ((2500, 2048, "0.168", "0.168"), (2992, 2991, "0.143", "0.14300000000000002"))


@dataclass(frozen=True)
class SyntheticFilm:
    """A synthetic film in either format.

    Attributes:
      name: file name without suffix.
      findings: the findings drawn on it, in the order of `FINDINGS`.
      stream: seed of its random numbers: the set's seed, the set, its index.
    """

    name: str
    findings: tuple[str, ...]
    stream: tuple[int, ...]

    def draw(self) -> Drawing:
        """Draws the film as it is in the folder, with its lungs and boxes."""
        return draw(np.random.default_rng(self.stream), self.findings)


@dataclass(frozen=True)
class SyntheticRecord(SyntheticFilm):
    """A film of the ChestX-ray14 format, with its row of the tables.

    Attributes:
      patient: from 1.
      follow_up: 0 for a patient's first film.
      age: number in units of `age_unit`.
      age_unit: Y, M or D.
      sex: M or F.
      view: PA or AP.
      detector: recorded width, height, pixel spacing as in 2017, as in v2020.
      test: whether it is in test_list.txt.
      labels_2017: the findings that the table of 2017 names; the v2020 table names all of `findings`.
    """

    patient: int
    follow_up: int
    age: int
    age_unit: str
    sex: str
    view: str
    detector: tuple[int, int, str, str]
    test: bool
    labels_2017: tuple[str, ...]


def jsrt_films(films: int, seed: int) -> list[SyntheticFilm]:
    """Plans the films of `write_jsrt`: `JPCLN...` with one nodule each, officially 154 of 247, and `JPCNN...` without.

    Raises:
      ValueError: for fewer than 2 films.
    """
    if films < 2:
        raise ValueError(f"films is {films}; the JSRT format needs at least 2 (one with a nodule, one without)")
    with_nodule = min(max(round(films * 154 / 247), 1), films - 1)
    plan = [SyntheticFilm(f"JPCLN{n:03d}", ("Nodule",), (seed, 0, n)) for n in range(1, with_nodule + 1)]
    plan += [SyntheticFilm(f"JPCNN{n:03d}", (), (seed, 1, n)) for n in range(1, films - with_nodule + 1)]
    return plan


def write_jsrt(folder: str | Path, films: int, seed: int) -> list[SyntheticFilm]:
    """Writes synthetic films in the format of JSRT and SCR, unless the folder has them already.

    `JPCLN001.IMG` and so on: headerless big-endian uint16, 2048 x 2048, 12 bits, a high value is dark. Masks:
    `fold1/masks/left lung/JPCLN001.gif` and so on, 1024 x 1024, 0 and 255; odd numbers in fold1, even ones in fold2.
    Synthetic films of other settings are replaced.

    Returns:
      `jsrt_films(films, seed)`.

    Raises:
      UserError: if the folder holds something other than synthetic films.
      ValueError: for fewer than 2 films.
    """
    plan = jsrt_films(films, seed)

    def fill(unfinished: Path) -> None:
        for fold in ("fold1", "fold2"):
            for lung in ("left lung", "right lung"):
                (unfinished / fold / "masks" / lung).mkdir(parents=True)
        _for_all(plan, lambda film: _write_jsrt_film(unfinished, film), "drawing JSRT-format films")

    _write_once(Path(folder), {"format": "jsrt", "films": films, "seed": seed}, fill)
    return plan


def chestxray14_films(films: int, seed: int, test_share: float) -> list[SyntheticRecord]:
    """Plans the films of `write_chestxray14`, in the order of the tables.

    Args:
      films: their number, at least 8; patients have 1 to 4 each.
      seed: of everything.
      test_share: share of the films in the test list, between 0 and 1; whole patients, so up to 3 films more.

    Raises:
      ValueError: for too few films or a share outside (0, 1).
    """
    if films < 2 * _MOST_FILMS_OF_A_PATIENT:
        raise ValueError(f"films is {films}; the ChestX-ray14 format needs at least 8 (two patients)")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}; expected a share between 0 and 1")
    rng = np.random.default_rng([seed, 2])
    counts: list[int] = []
    while sum(counts) < films:
        counts.append(min(int(rng.integers(1, _MOST_FILMS_OF_A_PATIENT + 1)), films - sum(counts)))
    test_patients, test_films = set(), 0
    for patient in rng.permutation(len(counts))[:-1]:  # at least one patient stays in train_val
        if test_films < test_share * films:
            test_patients.add(int(patient))
            test_films += counts[patient]
    hands = {test: _deal(rng) for test in (False, True)}
    labelled = set()
    plan: list[SyntheticRecord] = []
    for patient, count in enumerate(counts):
        age, sex = int(rng.integers(1, 91)), str(rng.choice(["M", "F"]))
        age_unit = {4: "M", 5: "D"}.get(patient % 50, "Y")
        test = patient in test_patients
        for follow_up in range(count):
            findings = next(hands[test])
            labels = []
            for name in findings:
                lost = test and name in labelled and name in BOXED_FINDINGS and rng.random() < _LABEL_LOST
                if not lost:
                    labels.append(name)
                if test:
                    labelled.add(name)
            plan.append(
                SyntheticRecord(
                    name=f"{patient + 1:08d}_{follow_up:03d}",
                    findings=findings,
                    stream=(seed, 3, len(plan)),
                    patient=patient + 1,
                    follow_up=follow_up,
                    age=age + follow_up,
                    age_unit=age_unit,
                    sex=sex,
                    view=str(rng.choice(["PA", "AP"])),
                    detector=_DETECTORS[rng.integers(len(_DETECTORS))],
                    test=test,
                    labels_2017=tuple(labels),
                )
            )
    return plan


def write_chestxray14(folder: str | Path, films: int, seed: int, test_share: float) -> list[SyntheticRecord]:
    """Writes synthetic films in the format of ChestX-ray14, unless the folder has them already.

    `images/` (1024 x 1024 PNG, a few RGBA), Data_Entry_2017.csv and Data_Entry_2017_v2020.csv (they differ as the
    official ones do), train_val_list.txt, test_list.txt (no patient in both), BBox_List_2017.csv (the boxes of
    8 findings on every test film). Synthetic films of other settings are replaced.

    Returns:
      `chestxray14_films(films, seed, test_share)`.

    Raises:
      UserError: if the folder holds something other than synthetic films.
      ValueError: for too few films or a share outside (0, 1).
    """
    plan = chestxray14_films(films, seed, test_share)

    def fill(unfinished: Path) -> None:
        (unfinished / "images").mkdir()
        boxes = _for_all(
            range(films),
            lambda place: _write_png(unfinished / "images", plan[place], rgba=place % _RGBA_EVERY == 3),
            "drawing ChestX-ray14-format films",
        )
        _write_tables(unfinished, plan, boxes)

    _write_once(Path(folder), {"format": "chestxray14", "films": films, "seed": seed, "test_share": test_share}, fill)
    return plan


def is_synthetic(folder: Path) -> bool:
    """Returns whether a folder holds synthetic radiographs."""
    return _settings_file(folder).is_file()


def is_whole(folder: Path) -> bool:
    """Returns whether a folder of synthetic radiographs has as many films as its settings say."""
    settings = read_settings(folder, {"films": 0, "format": ""})
    pattern = {"jsrt": "*.IMG", "chestxray14": "images/*.png"}[settings["format"]]
    return sum(1 for _ in folder.glob(pattern)) == settings["films"]


def read_settings(folder: Path, asked: Mapping) -> dict:
    """Reads the settings that the synthetic radiographs in a folder were drawn with.

    Args:
      folder: of synthetic radiographs.
      asked: the required settings, each with a value of the expected type.

    Returns:
      the settings, and `version`, the `DRAWING_VERSION` that drew them.

    Raises:
      DamagedError: naming file and key, for a missing setting, a value of the wrong type, or a damaged file.
    """
    kinds = {str: sealed.TEXT, int: sealed.WHOLE, float: sealed.NUMBER}
    shape = {name: kinds[type(value)] for name, value in asked.items()}
    what, mend = "the settings of synthetic radiographs", f"delete {folder} to have it drawn again"
    found = sealed.read(_settings_file(folder), shape, what, mend)
    # Instead of a version, sdfn_jax 0.1.0 wrote digests of its code, which drew version 1.
    found.pop("code", None)
    return {"version": 1, **found}


def _settings_file(folder: Path) -> Path:
    old = folder / _OLD_SETTINGS_FILE
    return old if old.is_file() else folder / _SETTINGS_FILE


def _for_all(items: Sequence, write: Callable, what: str) -> list:
    return list(bar(map_in_order(write, items), what=what, unit="film", total=len(items)))


def _write_once(folder: Path, settings: dict, fill: Callable[[Path], None]) -> None:
    """Fills a new folder and moves it into place, unless a complete one with these settings and this version exists."""
    wanted = settings | {"version": DRAWING_VERSION}
    with locked(folder.with_name(f".{folder.name}.lock"), folder):
        bring_back(folder)
        if is_synthetic(folder):
            if read_settings(folder, settings) == wanted and is_whole(folder):
                return
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: holds something other than synthetic radiographs; name a new or empty folder")
        with folder_appears_when_complete(folder) as unfinished:
            unfinished.mkdir()
            fill(unfinished)
            sealed.write(unfinished / _SETTINGS_FILE, wanted)


def _write_jsrt_film(folder: Path, film: SyntheticFilm) -> None:
    drawn = film.draw()
    side = Image.fromarray(drawn.image).resize((JSRT_SIDE, JSRT_SIDE), Image.Resampling.BILINEAR)
    # The film has 8 bits; the lower 4 are detector noise.
    noise = np.random.default_rng(film.stream).integers(0, 16, (JSRT_SIDE, JSRT_SIDE), np.uint8)
    (JSRT_MAXIMUM - (np.asarray(side, np.uint16) * 16 + noise)).astype(">u2").tofile(folder / f"{film.name}.IMG")
    masks = folder / ("fold1" if int(film.name[-3:]) % 2 else "fold2") / "masks"
    for lung, mask in (("left lung", drawn.left_lung), ("right lung", drawn.right_lung)):
        # Not optimised: Pillow would store 0 and 1 with a palette.
        Image.fromarray(mask.astype(np.uint8) * 255).save(masks / lung / f"{film.name}.gif", optimize=False)


def _write_png(folder: Path, film: SyntheticFilm, rgba: bool) -> dict[str, synthetic_film.FindingBox]:
    drawn = film.draw()
    image = Image.fromarray(drawn.image)
    if rgba:
        image = Image.merge("RGBA", (image, image, image, Image.new("L", image.size, 255)))
    image.save(folder / f"{film.name}.png", compress_level=_PNG_LEVEL)
    return drawn.boxes


def _deal(rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """Yields the findings of one film after another, dealt from a shuffled deck of the 14: all are equally frequent."""
    deck: list[int] = []
    while True:
        hand = set()
        for _ in range(rng.choice(len(_FINDINGS_PER_FILM), p=_FINDINGS_PER_FILM)):
            deck = deck or rng.permutation(len(FINDINGS)).tolist()
            hand.add(deck.pop())
        yield tuple(FINDINGS[index] for index in sorted(hand))


def _write_tables(folder: Path, plan: list[SyntheticRecord], boxes: list[dict[str, synthetic_film.FindingBox]]) -> None:
    rows_2017, rows_v2020 = [_COMMON_HEADER + ","], [_COMMON_HEADER]
    for film in plan:
        width, height, spacing, spacing_v2020 = film.detector
        years = {"Y": film.age, "M": film.age // 12, "D": film.age // 365}[film.age_unit]
        common = f"{film.sex},{film.view},{width},{height}"
        rows_2017.append(
            f"{film.name}.png,{'|'.join(film.labels_2017) or NO_FINDING},{film.follow_up:03d},{film.patient:08d},"
            f"{film.age:03d}{film.age_unit},{common},{spacing},{spacing}"
        )
        rows_v2020.append(
            f"{film.name}.png,{'|'.join(film.findings) or NO_FINDING},{film.follow_up},{film.patient},"
            f"{years},{common},{spacing_v2020},{spacing_v2020}"
        )
    box_rows = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    for name in BOXED_FINDINGS:
        for film, film_boxes in zip(plan, boxes, strict=True):
            if film.test and name in film.findings:
                left, top, right, bottom = map(float, film_boxes[name])
                label = _BOX_SPELLING.get(name, name)
                box_rows.append(f"{film.name}.png,{label},{left},{top},{right - left},{bottom - top}")
    lists = {test: [f"{film.name}.png" for film in plan if film.test == test] for test in (False, True)}
    for name, text in {
        "Data_Entry_2017.csv": "\r\n".join(rows_2017) + "\r\n",
        "Data_Entry_2017_v2020.csv": "\n".join(rows_v2020) + "\n",
        "BBox_List_2017.csv": "\n".join(box_rows) + "\n",
        "train_val_list.txt": "\n".join(lists[False]),
        "test_list.txt": "\n".join(lists[True]),
    }.items():
        (folder / name).write_bytes(text.encode())
