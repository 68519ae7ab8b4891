"""The one command: `python -m sdfn_jax.main --config=configs/fusion.py [--mode=...]`."""

from sdfn_jax.core import errors

if __name__ == "__main__":
    errors.begin_command()

from absl import app, flags, logging

from sdfn_jax.core import config_flag
from sdfn_jax.core.errors import UserError, run_command

_CONFIG = config_flag.define(
    "The stage: configs/<stage>.py[:argument]. Every number in it can be set: --config.batch_size=4."
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
    from sdfn_jax.core import (
        jit_cache,
        processes,  # here, so that --help and a misspelt flag need no jax
    )
    from sdfn_jax.workflow import modes

    def command() -> None:
        jit_cache.use_cache()
        processes.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        modes.run(_CONFIG.value, _MODE.value, _SPLIT.value)
        processes.wait_for_all()  # for the first, which may still write

    _check_flags(argv)
    with processes.ends_alone():
        run_command(command, "the same command resumes from the last checkpoint")


def _check_flags(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is a flag: --config=..., --config.KEY=VALUE")
    if flags.FLAGS["split"].present and (_MODE.value != "evaluate" or _CONFIG.value.stage == "lrg"):
        raise UserError("--split is for --mode=evaluate of a classifier; leave it out")


if __name__ == "__main__":
    run_command(lambda: app.run(main, flags_parser=config_flag.parse))
