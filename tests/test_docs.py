"""The pages lead where they say, name what there is, and every command and block of code in them works.

`.ci/run` builds the site of them, with warnings as errors: that checks links between pages, anchors, and the names in
`docs/reference.md`, and executes the notebooks. `test_api.py` runs the pages' Python.
"""

import ast
import csv
import fnmatch
import re

import page_blocks
import pytest
import yaml
from page_blocks import PAGES, ROOT

from sdfn_jax import __version__
from sdfn_jax.core import config_flag
from sdfn_jax.core.arguments import Parser
from sdfn_jax.metrics import published
from sdfn_jax.radiographs.findings import FINDINGS, display_name

README = (ROOT / "README.md").read_text(encoding="utf-8")
CITATIONS = sorted(ROOT.glob("tfds_builders/*/CITATIONS.bib"))
BLOCKS = [block for page in PAGES for block in page_blocks.blocks(page)]
# What checks a block of code, by its language.
CHECKED = {
    "": "test_every_command_is_one_that_its_program_takes",
    "bash": "test_every_command_is_one_that_its_program_takes",
    "yaml": "test_the_commands_of_a_cluster_job_are_right",
    "python": "test_api.py runs it",
    "{code-cell} python": "the site's build executes it; test_a_notebooks_cells_are_python",
    "{eval-rst}": "the site's build",
    "{toctree}": "the site's build",
    "csv": "test_every_row_of_a_table_is_as_long_as_its_head",
    "bibtex": "test_the_entries_are_those_of_the_data_sets_and_of_this_version",
}
NOT_CHECKED = {"text": "no code: a drawing of the house's floors"}


def of_language(language):
    return [block for block in BLOCKS if block.language == language]


by_page = pytest.mark.parametrize("page", PAGES, ids=page_blocks.name)


@by_page
def test_every_link_to_a_file_leads_to_one(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
    missing = [link for found in links for link in found if link and not (page.parent / link).exists()]
    assert not missing


@by_page
def test_every_command_is_one_that_its_program_takes(page):
    blocks = [block for block in page_blocks.blocks(page) if block.language in ("", "bash", "{code-cell} python")]
    for command in [command for block in blocks for command in block.commands]:
        page_blocks.check(command)
    assert not page_blocks.indented(page), "put commands between fences"
    for span in page_blocks.spans(page):
        if span.startswith(("sdfn ", "python -m ", "pip install ", "python tools/")):
            page_blocks.check(span)


def test_every_block_of_code_is_of_a_language_that_is_checked():
    for block in BLOCKS:
        assert block.language in CHECKED | NOT_CHECKED, f"{page_blocks.name(block.page)}: ```{block.language}"
    assert {block.language for block in BLOCKS} == {*CHECKED, *NOT_CHECKED}


def test_every_setting_on_a_page_is_one_of_a_config():
    known = set()
    for config in (
        "fusion.py:demo",
        "fusion.py:own",
        "fusion.py:finetuned",
        "classifier.py:entire",
        "lrg.py",
        "lungs.py",
    ):
        parser = Parser("a test")
        config_flag.add(parser, "")
        _, found = config_flag.parse(parser, [f"--config=configs/{config}"])
        for line in config_flag.shown(found).splitlines():
            names = re.match(r"--config\.([a-z_0-9.]+)", line)[1].split(".")
            known |= {".".join(names[:count]) for count in range(1, len(names) + 1)}
    for page in PAGES:
        unknown = page_blocks.settings(page) - known
        assert not unknown, f"{page_blocks.name(page)}: {unknown}"


@pytest.mark.parametrize("block", of_language("{code-cell} python"), ids=lambda block: block.page.stem)
def test_a_notebooks_cells_are_python(block):
    ast.parse(block.python)


def strings(value):
    """Yields the strings in a structure of lists and dictionaries."""
    if isinstance(value, str):
        yield value
    else:
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from strings(each)


def test_the_commands_of_a_cluster_job_are_right():
    for block in of_language("yaml"):
        commands = [each for each in strings(yaml.safe_load(block.text)) if each.startswith("sdfn ")]
        assert commands
        for command in commands:
            page_blocks.check(command)


def test_every_row_of_a_table_is_as_long_as_its_head():
    for block in of_language("csv"):
        head, *rows = csv.reader(block.text.splitlines())
        assert rows and {len(row) for row in rows} == {len(head)}


def test_the_entries_are_those_of_the_data_sets_and_of_this_version():
    entries = "\n".join(block.text for block in of_language("bibtex"))
    for path in CITATIONS:
        assert path.read_text(encoding="utf-8") in entries, f"docs/citing.md lacks {page_blocks.name(path)}"
    assert f"version = {{{__version__}}}" in entries
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_table_one_is_the_papers():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for finding, *aucs in zip(FINDINGS, *published.TABLE_ONE.values(), strict=True):
        assert f"| {display_name(finding)} | {' | '.join(f'{auc:.3f}' for auc in aucs)} |" in page


def test_every_data_set_is_in_the_list():
    page = (ROOT / "docs" / "data_sets.md").read_text(encoding="utf-8")
    for path in ROOT.glob("tfds_builders/*/README.md"):
        assert f"../tfds_builders/{path.parent.name}/README.md" in page


def test_every_page_is_in_the_sites_index():
    entries = [line for block in of_language("{toctree}") for line in block.text.splitlines()]
    named = [re.sub(r".*<(.+)>", r"\1", entry) for entry in entries]
    for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/notebooks/*.md")]:
        page = path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert page == "index" or any(fnmatch.fnmatch(page, each) for each in named), f"docs/index.md lacks {page}"


def test_readmes_two_commands_are_lines_of_their_own():
    """`.ci/run` takes them from there."""
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert [line.rpartition("&& ")[2].split()[-1] for line in lines] == ["--config=configs/fusion.py:demo", "pytest"]


def test_readme_is_short():
    assert len(README.splitlines()) <= 132


def test_the_house_has_every_room():
    (house,) = (block.text for block in of_language("text"))
    rooms = {path.parent.name for path in (ROOT / "sdfn_jax").glob("*/__init__.py")}
    assert rooms <= {*house.split()}
