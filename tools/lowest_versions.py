"""Tries the lowest version of every range in pyproject.toml: a fresh environment with just these, and the tests in it.

python tools/lowest_versions.py FOLDER [arguments of pytest]      (FOLDER: of the environment, kept for another look)

Run it when a bound changes. Without arguments for pytest it runs the tests of what the other packages do for us.
"""

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = "test,export,convert"
QUICK = [
    *("errors", "settings", "checkpoint", "input_pipeline", "optimizer", "unet", "sdfn", "train", "prepare"),
    *("chestxray14", "images", "dicom", "lung_boxes", "bootstrap", "export", "weights", "viewer"),
]


def lowest(requirement: str) -> str | None:
    """Returns `name==bound` for a requirement with a lower bound, None for one without."""
    name, bounded, versions = requirement.partition(">=")
    return f"{name.partition('[')[0]}=={versions.partition(',')[0]}" if bounded else None


def main(folder: str, *arguments: str) -> int:
    """Makes the environment and runs the tests; returns their exit status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    chosen = ("dicom", "viewer", *EXTRAS.split(","))
    wanted = project["dependencies"] + [each for name in chosen for each in extras[name]]
    venv.create(folder, with_pip=True)
    python = Path(folder).resolve() / "bin" / "python"
    constraints = Path(folder) / "lowest.txt"
    constraints.write_text("".join(f"{each}\n" for each in sorted({*map(lowest, wanted)} - {None})))
    print(constraints.read_text(), flush=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, "-e", f"{ROOT}[{EXTRAS}]"], check=True)
    tests = arguments or ["-n", "0", *(f"tests/test_{name}.py" for name in QUICK)]
    return subprocess.run([python, "-m", "pytest", "-q", "-m", "not real and not parity", *tests], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
