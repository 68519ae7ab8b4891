"""The pages lead where they say, and name what there is."""

import re
from pathlib import Path

import pytest

from sdfn_jax import cli

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tfds_builders/*/*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_to_one(page):
    links = re.findall(r"\]\(([^)#:]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
    missing = [link for found in links for link in found if link and not (page.parent / link).exists()]
    assert not missing


def test_the_layout_is_short_and_names_every_room():
    layout = README.split("## Layout")[1].split("```")[1]
    assert len(layout.strip().splitlines()) <= 20
    rooms = {path.parent.name for path in (ROOT / "sdfn_jax").glob("*/__init__.py")}
    named = {line.split()[0].rstrip("/") for line in layout.splitlines() if line.startswith("  ")}
    assert named == rooms


def test_readmes_two_commands_are_lines_of_their_own():
    """`.ci/run` takes them from there."""
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert [line.rpartition("&& ")[2].split()[-1] for line in lines] == ["--config=configs/fusion.py:demo", "pytest"]


def test_every_sdfn_command_on_a_page_exists():
    for page in PAGES:
        for name in re.findall(r"(?:^|`)sdfn ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert name in cli.COMMANDS, f"{page.name}: sdfn {name}"
