"""`--config`, for the commands that take one: finds the file and reads it; a mistake in it is one sentence."""

import argparse
import contextlib
import difflib
import re
import runpy
import shlex
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from sdfn_jax.core.arguments import Parser
from sdfn_jax.core.errors import UserError

_PACKAGE = Path(__file__).parent.parent
# `configs/` as shipped: inside an installed package, and next to the package in a checkout.
_SHIPPED = next((each for each in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if each.is_dir()), None)


def add(parser: Parser, help: str, required: bool = False) -> None:
    """Adds `--config` and `--config.KEY` to a parser; parse with `parse`."""
    parser.add_argument("--config", metavar="FILE[:VARIANT]", required=required, help=help)
    parser.add_argument("--config.KEY", metavar="VALUE", help="replaces a value in the config: --config.batch_size=4")


def parse(parser: Parser, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, ConfigDict | None]:
    """Parses a command line with `--config` in it.

    Args:
      parser: after `add`.
      arguments: those of this process if None.

    Returns:
      (the values of all flags; the config, locked, or None without `--config`). The value of `--config` is the path of
      the file that was read, absolute.

    Raises:
      UserError: for a setting that the config lacks, a value of the wrong type, or a config that cannot be read.
    """
    rest, settings = _split(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(rest)
    if options.config is None:
        if settings:
            parser.error(f"{settings[0]} needs --config=FILE")
        return options, None
    name, _, variant = options.config.partition(":")
    options.config = _find(name)
    return options, _set(_load(options.config, variant), settings)


def shown(config: ConfigDict) -> str:
    """Returns a config as the flags that set it, a line for each setting; those that are not set have no value."""
    values = _leaves(config)
    return "\n".join(
        f"--config.{name}{'' if value is None else f'={shlex.quote(str(value))}'}" for name, value in values
    )


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates the settings, `--config.KEY=VALUE` or `--config.KEY VALUE`, from all other arguments."""
    rest: list[str] = []
    settings: list[str] = []
    waiting = False  # the last setting may still get its value
    for argument in arguments:
        if argument.startswith(("--config.", "--noconfig.")):
            settings.append(argument)
            waiting = "=" not in argument
        elif waiting and not argument.startswith("--"):
            settings[-1] += f"={argument}"
            waiting = False
        else:
            rest.append(argument)
            waiting = False
    return rest, settings


def _find(name: str) -> Path:
    """Returns the file: the user's own, or else `configs/NAME` as shipped."""
    own = Path(name)
    if own.exists():
        return own.resolve()
    if _SHIPPED is not None and own.parent == Path("configs") and (_SHIPPED / own.name).exists():
        return _SHIPPED / own.name
    shipped = sorted(path.stem for path in (_SHIPPED or own).glob("[a-z]*.py"))
    raise UserError(
        f"--config={name}: no such file in {Path.cwd()}; give its path, or one that is installed: "
        + ", ".join(f"configs/{each}.py" for each in shipped)
    )


def _load(file: Path, variant: str) -> ConfigDict:
    """Returns what `get_config` of a file returns."""
    try:
        with _neighbours_found(file.parent):
            get_config = runpy.run_path(str(file)).get("get_config", ConfigDict)
            config = get_config(variant) if variant else get_config()
    except ImportError as error:
        raise UserError(
            f"--config={file}: it imports {error.name}, which was not found. A config imports others as "
            "configs.NAME, from its own folder or from those installed."
        ) from error
    except SyntaxError as error:
        raise UserError(f"--config={file}: not Python: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"--config={file}: {error}") from error
    if config.get("stage") is None:
        raise UserError(f"--config={file}: it does not configure a stage; start from one of the files in configs/")
    return config


def _set(config: ConfigDict, settings: Sequence[str]) -> ConfigDict:
    """Returns the config with the settings of the command line, locked."""
    for setting in settings:
        _check_known(config, re.sub(r"\[.*|=.*", "", setting.partition(".")[2]))
    values = flags.FlagValues()  # not absl's global ones: other libraries' flags do not belong to this command
    arguments = ["", *settings]
    try:
        config_flags.DEFINE_config_dict("config", config, "", flag_values=values, sys_argv=arguments, lock_config=True)
        values(arguments)
    except flags.Error as error:
        raise UserError(str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections raises bare Python errors, with the key in quotes within quotes.
        message = str(error).replace("\\n", ". ").replace("\\", "").replace("'", "")
        raise UserError(f"no such setting in --config: {message}") from error
    found = values["config"].value
    for name, value in _leaves(found):
        if isinstance(value, tuple) and any(isinstance(each, str) and "," in each for each in value):
            parts = tuple(part.strip() for each in value for part in each.split(","))
            found.update_from_flattened_dict({name: parts})  # texts may be written without quotes: Edema,Mass
    return found


def _check_known(config: ConfigDict, name: str) -> None:
    """Raises UserError for a setting that a config lacks, with the one that was probably meant."""
    known = [each for each, _ in _leaves(config)]
    if name in known:
        return
    inside = [each for each in known if each.startswith(f"{name}.")]
    if inside:
        raise UserError(f"--config.{name} is a group of settings: set one of them, such as --config.{inside[0]}")
    meant = _meant(name, sorted(known, key=lambda each: (each.count("."), len(each))))
    hint = f"did you mean --config.{meant}?" if meant else "--print_config lists all"
    raise UserError(f"no such setting: --config.{name}; {hint}")


def _meant(name: str, known: Sequence[str]) -> str | None:
    """Returns the setting that a wrong name probably stands for: misspelt, in another group, or abbreviated.

    Args:
      name: dotted.
      known: the settings, the most likely first.
    """
    group, _, word = name.rpartition(".")
    elsewhere = [each for each in known if each.rpartition(".")[2] == word]
    if elsewhere:
        return difflib.get_close_matches(name, elsewhere, n=1, cutoff=0)[0] if group else elsewhere[0]
    leaves = {each.rpartition(".")[2]: each for each in known if each.rpartition(".")[0] == group}
    initials = _initials(word)
    if whole := next((each for leaf, each in leaves.items() if initials.fullmatch(leaf)), None):
        return whole
    if close := difflib.get_close_matches(word, leaves, n=1):
        return leaves[close[0]]
    for letters in (initials, re.compile(".*".join(map(re.escape, word)))):
        for each in [*leaves.values(), *known]:
            if letters.match(each.rpartition(".")[2]):
                return each
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _initials(word: str) -> re.Pattern:
    """Returns the pattern of names of which parts are initials: `lr_decay` stands for `learning_rate_decay`."""
    parts = [(re.escape(part), "[^_]*_".join(map(re.escape, part))) for part in word.split("_")]
    return re.compile("_".join(f"(?:{part}|{initials}[^_]*)" for part, initials in parts))


def _leaves(config: ConfigDict, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every setting."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


@contextlib.contextmanager
def _neighbours_found(folder: Path) -> Iterator[None]:
    """Lets a config import `configs.NAME`: from its own folder first, then from those shipped; no other folder."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "configs"}
    package = types.ModuleType("configs")
    package.__path__ = [str(folder), *([str(_SHIPPED)] if _SHIPPED else [])]
    for name in before:
        del sys.modules[name]
    sys.modules["configs"] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
            del sys.modules[name]
        sys.modules.update(before)
