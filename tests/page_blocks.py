"""What the pages tell their readers to type: blocks of code, and commands in them and in the text."""

import argparse
import contextlib
import dataclasses
import importlib
import io
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from sdfn_jax import cli
from sdfn_jax.core import config_flag

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("tfds_builders/*/README.md"),
        ROOT / "sdfn_jax" / "lungs" / "shipped" / "MODEL_CARD.md",
    ]
)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
_FENCED = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: the page, the words after the fence, and its lines."""

    page: Path
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The command lines of a block of commands, or of a notebook's cell that begins with `%%sh`."""
        text = self.text
        if self.language.startswith("{code-cell}"):
            text = "".join(re.split(r"^%%sh.*\n", text, flags=re.MULTILINE)[1:])
        lines = text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]

    @property
    def python(self) -> str:
        """A notebook's cell as Python: without its options (`:tags:`) and commands."""
        text = re.split(r"^%%sh", self.text, flags=re.MULTILINE)[0]
        return "\n".join(line for line in text.splitlines() if not line.startswith(":"))


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    found = []
    for indent, language, text in _FENCED.findall(page.read_text(encoding="utf-8")):
        found.append(Block(page, language.strip(), re.sub(f"^{indent}", "", text, flags=re.MULTILINE)))
    return found


def spans(page: Path) -> list[str]:
    """The `code` in a page's text; a line break in it counts as a blank."""
    paragraphs = _FENCED.sub("", page.read_text(encoding="utf-8")).split("\n\n")
    return [" ".join(span.split()) for each in paragraphs for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", each)]


class Parsed(BaseException):
    """A command's own parser took the command line; nothing was run."""


def check(line: str) -> None:
    """Fails unless every command of a line is one that there is, with arguments that it takes."""
    line = re.sub(r"\$\(\(.+?\)\)|\$\w+", "1", line)  # what the shell fills in
    for command in re.split(r"&&|\|\|", line):
        words = shlex.split(command, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            assert words[0] in _CHECKS, f"no check for {words[0]}"
            _CHECKS[words[0]](words[1:])


def _python(words: list[str]) -> None:
    if words[0] == "-c":
        compile(words[1], "-c", "exec")
    elif words[0] != "-m":
        assert (ROOT / words[0]).is_file(), words[0]
        _module(words[0].removesuffix(".py").replace("/", "."), words[1:])
    elif words[1] == "venv":
        assert len(words) == 3
    else:
        _module(words[1], words[2:])


def _module(module: str, arguments: list[str]) -> None:
    assert module.split(".")[0] in ("sdfn_jax", "tfds_builders", "benchmarks", "tools"), module
    path = ROOT / module.replace(".", "/")
    if module == "tfds_builders.prepare":
        module = "sdfn_jax.prepare"  # the same command; it imports TFDS only to run
    elif path.is_dir():
        module = f"{module}.__main__"
    if arguments:
        _parse(lambda: importlib.import_module(module).main, arguments)
    else:
        assert path.is_dir() or path.with_suffix(".py").is_file(), module


def _sdfn(words: list[str]) -> None:
    assert words[0] in (*cli.COMMANDS, "--help", "--version"), f"sdfn {words[0]}"
    if "..." in words:
        _takes(words[0], [word.partition("=")[0] for word in words if word.startswith("--")])
    elif len(words) > 1:
        _parse(lambda: cli.main, words)


def _takes(command: str, flags: list[str]) -> None:
    """Of a command with words left out (`sdfn evaluate ... --split=test`): it has these flags."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        cli.main([command, "--help"])
    for flag in flags:
        assert flag.startswith("--config.") or flag in said.getvalue(), f"sdfn {command} {flag}"


def _parse(find: Callable, arguments: list[str]) -> None:
    """Runs a command until its arguments are parsed."""
    parse, parse_with_config = argparse.ArgumentParser.parse_args, config_flag.parse

    def parse_args(*given, **named):
        options = parse(*given, **named)
        if hasattr(options, "config"):
            return options  # `config_flag.parse` continues with the config and its settings
        raise Parsed

    def parse_config(*given, **named):
        parse_with_config(*given, **named)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(config_flag, "parse", parse_config)
        patch.setattr("sys.argv", ["command", *arguments])
        main = find()
        with pytest.raises(Parsed):
            main(arguments) if main.__code__.co_argcount else main()


def _pip(words: list[str]) -> None:
    assert words[0] == "install"
    for word in words[1:]:
        if ours := re.fullmatch(r"(?:sdfn_jax|\.)\[(.+)\]", word):
            assert {*ours[1].split(",")} <= {*EXTRAS}, word
        else:
            assert word in (".", "-e", "--no-deps") or re.fullmatch(r"[a-z][a-z0-9-]+", word), word


def _files(words: list[str]) -> None:
    """Of another program: files of ours that it is given are there."""
    for word in words:
        if word.startswith(("tests/", "docs/", ".ci/", "tools/", "tfds_builders/")):
            assert (ROOT / word).exists(), word


def _last_is_ours(words: list[str]) -> None:
    _sdfn(words[words.index("sdfn") + 1 :])


_CHECKS = {
    "sdfn": _sdfn,
    "python": _python,
    "python3": _python,
    "pip": _pip,
    "srun": _last_is_ours,
    **dict.fromkeys(
        (".", "[", "bash", "cd", "tfds", "pytest", "ruff", "mypy", "pre-commit", "tensorboard", "sphinx-build"), _files
    ),
}


def indented(page: Path) -> list[str]:
    """Commands in blocks that indentation makes: nothing here would see them."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"^    +(?:sdfn|python|pip) .*", text, re.MULTILINE)


def settings(page: Path) -> set[str]:
    """The settings, and groups of settings (`--config.data...`), that a page names, in blocks and text."""
    return {found.rstrip(".") for found in re.findall(r"--config\.([a-z_0-9.]+)", page.read_text(encoding="utf-8"))}
