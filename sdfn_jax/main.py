"""The one command: `python -m sdfn_jax.main --config=configs/fusion.py [--mode=...]`."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The stage: configs/<stage>.py[:argument]. Every number in it can be set: --config.batch_size=4.",
    lock_config=True,
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "cross_validate"],
    "train: the stage and whatever it needs, then its evaluation; evaluate: a trained stage on --split; "
    "cross_validate: the LRG, five folds.",
)
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "What --mode=evaluate reads.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Of a run of several processes, the same command in each: HOST:PORT of process 0, with --processes and --process; "
    "or auto, where the cluster says them (Slurm, Open MPI, Kubernetes, Cloud TPU).",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Runs the stage named by --config."""
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell each of their steps otherwise
    from sdfn_jax import commands, compiled, processes  # here, so that --help and a misspelt flag need no jax
    from sdfn_jax.errors import UserError, exit_on_user_error
    from sdfn_jax.train import InterruptedRunError

    def command() -> None:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; everything is a flag: --config=..., --config.KEY=VALUE")
        try:
            _CONFIG.value.stage  # noqa: B018 - a file that could not be loaded says so only when it is looked into
        except OSError as error:
            raise UserError(f"--config: run from the repository's folder, or mend the path. {error}") from error
        compiled.use_cache()
        processes.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        try:
            commands.run(_CONFIG.value, _MODE.value, _SPLIT.value)
        except UserError as error:
            raise UserError(f"{processes.name()}{error}") from error
        processes.wait_for_all()  # for the first, which may still write

    with processes.ends_alone():
        try:
            exit_on_user_error(command)
        except (InterruptedRunError, KeyboardInterrupt) as stop:
            message = str(stop) or "stopped; the same command goes on from the last checkpoint"
            print(f"\n{processes.name()}{message}", file=sys.stderr)
            sys.exit(130)


def _parse_flags(arguments: list[str]) -> list[str]:
    """Parses the command line; a setting that no config has, or of another type, is a message and status 2."""
    try:
        return app.parse_flags_with_usage(arguments)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections raises bare Python errors for --config.KEY=VALUE, with the key in quotes within quotes.
        message = str(error).replace("\\", "").replace("'", "").replace("nDid", ". Did")
        print(f"error: no such setting in --config: {message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
