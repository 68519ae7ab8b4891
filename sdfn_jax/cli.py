"""`sdfn COMMAND ...`: the commands of this package under one name.

A command's module is imported only when it is run, and imports what it needs only when its command line is right.
"""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from sdfn_jax import __version__
from sdfn_jax.core import errors
from sdfn_jax.core.arguments import nearest


@dataclasses.dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
      module: in `sdfn_jax`; its `main` takes the arguments and the command's name.
      summary: one line.
      options: further arguments of `main`.
    """

    module: str
    summary: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


COMMANDS = {
    "train": Command("main", "train a stage with all it needs: the main job", {"modes": ("train", "cross_validate")}),
    "evaluate": Command("main", "evaluate a trained stage on a split", {"modes": ("evaluate",)}),
    "prepare": Command("prepare", "prepare a data set from your own download"),
    "lungs": Command("lrg", "find the lungs in a folder of radiographs: the box table"),
    "predict": Command("predict", "read your own radiographs: predictions and a page to look at"),
    "pacs": Command("pacs", "read an archive's films over DICOMweb, and store the results in it"),
    "view": Command("viewer", "serve a page that reads the radiographs dropped on it"),
    "localize": Command("localize", "compare boxes from heatmaps with the reference boxes"),
    "report": Command("report", "write all results of evaluated runs as one page"),
    "export": Command("export", "write a trained stage as safetensors, StableHLO or ONNX"),
    "convert": Command("pretrained", "convert a weights file of another library"),
    "selftest": Command("selftest", "compare this installation with golden outputs"),
}
_HELP = f"""\
usage: sdfn COMMAND ...

The Segmentation-based Deep Fusion Network (Liu et al. 2018): 14 thoracic findings on chest radiographs.
For research, not for diagnosis.

commands:
{chr(10).join(f"  {name:<10}{command.summary}" for name, command in COMMANDS.items())}

sdfn COMMAND --help describes a command; sdfn --version prints the version.

to try it, on synthetic radiographs, in minutes:
  sdfn train --config=configs/fusion.py:demo
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(_HELP, end="")
    elif name == "--version":
        print(f"sdfn_jax {__version__}")
    elif name not in COMMANDS:
        raise errors.UserError(
            f"unknown command {name}{nearest(name, list(COMMANDS))} (sdfn --help lists the commands)"
        )
    else:
        command = COMMANDS[name]
        module = importlib.import_module(f"sdfn_jax.{command.module}")
        errors.run_command(
            lambda: module.main(rest, f"sdfn {name}", **command.options), getattr(module, "AGAIN", errors.STARTS_AGAIN)
        )


def run() -> None:
    """Runs this process as the console command."""
    errors.run_as_process(main)


if __name__ == "__main__":
    run()
