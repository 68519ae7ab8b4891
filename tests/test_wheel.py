"""What is installed without the repository: one wheel, built once, unpacked into an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sdfn_jax import __version__

ROOT = Path(__file__).parent.parent
pytest.importorskip("setuptools", minversion="77")
SOURCES = {"sdfn_jax": "sdfn_jax", "tfds_builders": "tfds_builders", "configs": "sdfn_jax/configs"}


def pip(*arguments):
    words = [sys.executable, "-m", "pip", *map(str, arguments)]
    subprocess.run(words, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, as setuptools leaves its intermediate files next to the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--quiet", "--no-deps", "--target", folder, wheel)
    return folder


def sdfn(installed, folder, *arguments):
    """Runs the console command in a folder, with the installed package alone."""
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    words = [sys.executable, str(installed / "bin" / "sdfn"), *arguments]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_every_file_of_the_packages_and_the_configs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in SOURCES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert found == files
    assert wheel.name == f"sdfn_jax-{__version__}-py3-none-any.whl"


def test_the_licence_and_the_version_are_in_its_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        folder = f"sdfn_jax-{__version__}.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode()
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "License-Expression: Apache-2.0" in metadata and f"\nVersion: {__version__}\n" in metadata


def test_the_selftest_of_an_installed_package_passes(installed, tmp_path):
    done = sdfn(installed, tmp_path, "selftest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout


def test_an_installed_config_is_found_from_an_empty_folder(installed, tmp_path):
    done = sdfn(installed, tmp_path, "evaluate", "--config=configs/fusion.py:demo")
    assert done.returncode == 2
    assert done.stdout == f"config: {installed / 'sdfn_jax' / 'configs' / 'fusion.py'}\n"
    assert "runs/demo/tfds/chestxray14/size96_labels2017/1.0.0 is missing; make it" in done.stderr
