"""The main job: trains a stage with whatever it needs, or evaluates one.

python -m sdfn_jax.main --config=configs/fusion.py [--mode=...]
"""

from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import arguments as command_line
from sdfn_jax.core import config_flag, errors

AGAIN = "the same command resumes from the last checkpoint"
_MODES = {
    "train": "the stage and whatever it needs, then its evaluation",
    "evaluate": "a trained stage, on --split",
    "cross_validate": "the lung region generator, five folds",
}
_DESCRIPTIONS = {
    "train": "Trains a stage with whatever it needs, then evaluates it. Interrupted, the same command resumes.",
    "evaluate": "Evaluates a trained stage on a split of its data set.",
}


def main(
    arguments: Sequence[str] | None = None,
    prog: str = "python -m sdfn_jax.main",
    modes: Sequence[str] = ("train", "evaluate", "cross_validate"),
) -> None:
    """Runs a stage.

    Args:
      arguments: the command line; that of this process if None.
      prog: what --help calls the command.
      modes: those that the command offers; the first is the default.
    """
    parser = command_line.Parser(prog, description=_DESCRIPTIONS[modes[0]], examples=_EXAMPLES)
    config_flag.add(parser, "the stage: configs/lrg.py, configs/classifier.py or configs/fusion.py", required=True)
    if len(modes) > 1:
        said = "; ".join(f"{mode}: {_MODES[mode]}" for mode in modes)
        parser.add_argument("--mode", choices=modes, default=modes[0], help=f"{said} (default: {modes[0]})")
    if "evaluate" in modes:
        parser.add_argument(
            "--split", choices=("train", "validation", "test"), help="what evaluate reads (default: test)"
        )
        parser.add_argument(
            "--output",
            type=Path,
            help="folder in which evaluate writes a folder for each stage (default: the runs' own)",
        )
        parser.add_argument(
            "--expert_labels",
            type=Path,
            metavar="PATH",
            help="Google's expert labels on films of ChestX-ray14 (test_labels.csv or its folder): evaluate prints the "
            "AUCs under them too",
        )
    parser.add_argument("--print_config", action="store_true", help="print every setting as its flag, and end")
    parser.add_argument(
        "--coordinator",
        help="of a run of several processes, the same command in each: HOST:PORT of process 0, with --processes and "
        "--process; or auto, if the cluster provides them (Slurm, Open MPI, Kubernetes, Cloud TPU)",
    )
    parser.add_argument("--processes", type=int, help="how many processes there are")
    parser.add_argument("--process", type=int, help="which of them this is, from 0")
    parser.set_defaults(mode=modes[0], split=None, output=None, expert_labels=None)
    options, config = config_flag.parse(parser, arguments)
    for flag in ("split", "output", "expert_labels"):
        if getattr(options, flag) is not None and (options.mode != "evaluate" or config.stage == "lrg"):
            parser.error(f"--{flag} is for evaluating a classifier; leave it out")

    if options.print_config:
        print(config_flag.shown(config))
        return

    def command() -> None:
        jit_cache.use_cache()
        processes.start(options.coordinator, options.processes, options.process)
        if processes.is_first():
            print(f"config: {options.config}", flush=True)
        workflow_modes.run(config, options.mode, options.split or "test", options.output, options.expert_labels)
        processes.wait_for_all()  # for process 0, which may still be writing

    from sdfn_jax.core import jit_cache, processes  # here and below, so that --help needs no JAX
    from sdfn_jax.workflow import modes as workflow_modes

    with processes.ends_alone():
        errors.run_command(command, AGAIN)


_EXAMPLES = """\
examples:
  %(prog)s --config=configs/fusion.py             the paper's recipe
  %(prog)s --config=configs/fusion.py:montgomery  the same, lungs learned from open data
  %(prog)s --config=configs/fusion.py:small       a quick run on real films
  %(prog)s --config=configs/fusion.py:demo        minutes, on synthetic radiographs
  %(prog)s --config=configs/fusion.py:own --config.data.table=films.csv
                                                  your own films and findings (docs/own_data.md)
  %(prog)s --config=configs/fusion.py --config.learning_rate=1e-3 --config.runs=runs/lr1e-3
                                                  another try, in a folder of its own"""

if __name__ == "__main__":
    errors.run_as_process(main, AGAIN)
