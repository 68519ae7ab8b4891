"""Writes the tables of films for the tuberculosis runs of docs/tuberculosis.md (`configs/fusion.py:own`).

python -m tools.tuberculosis FOLDER --output=films.csv             (trained on Shenzhen, tested on Montgomery)
python -m tools.tuberculosis FOLDER --output=fold_0.csv --fold=0   (one of five folds within Shenzhen)

FOLDER holds both sets as the National Library of Medicine gives them, ChinaSet_AllFiles and MontgomerySet,
at any depth.
The last digit of a film's name is its label: 1 for tuberculosis. Every film is of another patient.
"""

import argparse
import csv
import re
from collections.abc import Iterator
from pathlib import Path

from sdfn_jax.core import errors
from sdfn_jax.core.files import appears_when_complete

FOLDS = 5  # a film's is its number modulo this
_FILM = re.compile(r"(?P<set>CHNCXR|MCUCXR)_(?P<number>\d{4})_(?P<label>[01])\.png")
_SPLITS = {"CHNCXR": "train", "MCUCXR": "test"}


def films(folder: Path) -> Iterator[tuple[Path, re.Match]]:
    """Yields the radiographs of both sets, in the order of their names; masks bear the same names and are left out.

    Raises:
      errors.UserError: if a set is not there.
    """
    found = [(path, _FILM.fullmatch(path.name)) for path in folder.rglob("CXR_png/*.png")]
    found = sorted(((path, match) for path, match in found if match), key=lambda film: film[0].name)
    for name in _SPLITS:
        if not any(match["set"] == name for _, match in found):
            raise errors.UserError(f"no radiographs named {name}_*.png in a folder CXR_png below {folder}")
    yield from found


def rows(folder: Path, fold: int | None) -> Iterator[dict[str, str]]:
    """Yields the rows of the table; of the films outside the test fold, some are drawn for validation later."""
    for path, match in films(folder):
        split = _SPLITS[match["set"]]
        if fold is not None:
            if match["set"] != "CHNCXR":
                continue
            split = "test" if int(match["number"]) % FOLDS == fold else "train"
        yield {"image": str(path.resolve()), "Tuberculosis": match["label"], "split": split}


def main() -> None:
    """Writes a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fold", type=int, choices=range(FOLDS))
    options = parser.parse_args()
    table = list(rows(options.folder, options.fold))
    with appears_when_complete(options.output) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    print(f"{options.output}: {len(table)} films, {sum(row['Tuberculosis'] == '1' for row in table)} with tuberculosis")


if __name__ == "__main__":
    errors.run_as_process(main)
