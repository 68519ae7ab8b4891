"""Tries the lowest or the newest versions that pyproject.toml admits: a fresh environment, and the quick tests in it.

python tools/versions.py lowest FOLDER                                  (FOLDER: of the environment, kept)
python tools/versions.py newest FOLDER --python=python3.13
python tools/versions.py newest FOLDER --tests "tests/test_cli.py -k help"
python tools/versions.py newest FOLDER --tests "--ignore=tests/test_main.py"      (all tests but those)

Run it when a bound changes. It is not part of CI: it downloads some gigabytes. If versions contradict each other, pip
says which. With the same FOLDER again only the tests take time.
"""

import argparse
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = ("test", "export", "convert")
QUICK = [
    *("errors", "cli", "settings", "checkpoint", "input_pipeline", "optimizer", "unet", "sdfn", "train", "prepare"),
    *("chestxray14", "images", "dicom", "lung_boxes", "bootstrap", "export", "weights", "viewer"),
]


def lowest(requirement: str) -> str | None:
    """Returns `name==bound` for a requirement with a lower bound, None for one without."""
    name, bounded, versions = requirement.partition(">=")
    return f"{name.partition('[')[0]}=={versions.partition(',')[0]}" if bounded else None


def lowest_versions() -> list[str]:
    """Returns pip's constraints for the lowest version of every range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [each for name in ("dicom", "viewer", *EXTRAS) for each in extras[name]]
    return sorted({*map(lowest, wanted)} - {None})


def main() -> int:
    """Makes the environment and runs the tests; returns their exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", choices=("lowest", "newest"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=sys.executable, help="the interpreter (default: this one)")
    parser.add_argument("--tests", help="arguments of pytest (default: the quick test files)")
    options = parser.parse_args()
    subprocess.run([options.python, "-m", "venv", options.folder], check=True)
    python = options.folder.resolve() / "bin" / "python"
    constraints = options.folder / "constraints.txt"
    constraints.write_text("".join(f"{each}\n" for each in lowest_versions()) if options.versions == "lowest" else "")
    install = [python, "-m", "pip", "install", "--progress-bar=off", "-c", constraints]
    if status := subprocess.run([*install, "-e", f"{ROOT}[{','.join(EXTRAS)}]"]).returncode:
        return status
    subprocess.run([python, "-m", "pip", "freeze"], check=True)
    tests = shlex.split(options.tests or " ".join(f"tests/test_{name}.py" for name in QUICK))
    words = [python, "-m", "pytest", "-n", "0", "-q", "-m", "not real and not parity", *tests]
    return subprocess.run(words, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
