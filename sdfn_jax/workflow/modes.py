"""The modes of the one command."""

import shlex
from pathlib import Path

from ml_collections import ConfigDict

from sdfn_jax.core import backend, networks, processes
from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics.evaluation import evaluation_folder
from sdfn_jax.radiographs import expert_labels as experts_table
from sdfn_jax.radiographs import findings
from sdfn_jax.reporting import experts, table_one
from sdfn_jax.workflow import checks, data_stages, evaluations, plan, results, seeds, stages


def run(
    config: ConfigDict, mode: str, split: str, output: Path | None = None, expert_labels: Path | None = None
) -> None:
    """Runs a mode on the stage of a config.

    Args:
      config: from `configs/`.
      mode: `train`, `evaluate` or `cross_validate`.
      split: what `evaluate` reads of ChestX-ray14.
      output: folder in which `evaluate` writes a folder for each stage; None for the runs' own.
      expert_labels: table of Google's expert labels, or its folder, under which `evaluate` scores too.

    Raises:
      UserError: for whatever the user can fix; what cannot be made is reported before anything is trained.
    """
    checks.check(config)
    processes.check_agreement("the command", f"{mode} {split} {config.to_json_best_effort()}")
    backend.start()
    if mode == "train":
        steps = plan.make_plan(config)
        with processes.writing_alone(config.workdir):  # to the end, so that no second command runs one of its steps
            plan.follow(steps, config.workdir)
            if processes.is_first():
                _show(config)
    elif mode == "cross_validate":
        if config.stage != "lrg":
            raise UserError(f"--mode=cross_validate is for --config=configs/lrg.py, not for the stage {config.stage}")
        _check_one_process(mode)
        print(stages.cross_validate(config, data_stages.check_prepared(config)))
    elif config.stage == "lrg":
        _check_one_process(mode)
        print(stages.evaluate_lrg(config, data_stages.check_prepared(config)))
    else:
        data = data_stages.check_prepared(config)
        shown = plan.classifiers(seeds.end(config))
        labelled, names = None, []
        if expert_labels is not None:
            metadata = networks.metadata(shown[-1].workdir)
            names = list(map(findings.display_name, findings.named_in(metadata)))
            labelled = experts_table.read(expert_labels, names)
        places = [
            evaluation_folder(stage.workdir, split) if output is None else output / stage.stage for stage in shown
        ]
        evaluated = [
            evaluations.evaluate_split(stage, data, split, None if output is None else place)
            for stage, place in zip(shown, places, strict=True)
        ]
        if processes.is_first():
            print(table_one.text(table_one.TableOne.of(evaluated)))
            if labelled is not None:
                print(experts.text(labelled, evaluated, names))
            print("\n".join(map(str, places)))


def _show(config: ConfigDict) -> None:
    """Prints what the job ends with."""
    if config.stage != "lrg":
        end = seeds.end(config)
        results.show(end, plan.classifiers(end))
    else:
        run = shlex.quote(config.workdir)
        print(f"find lungs:      python -m sdfn_jax.lrg FOLDER --checkpoint={run} --output=lung_boxes.csv")


def _check_one_process(mode: str) -> None:
    if processes.several():
        raise UserError(f"--mode={mode} of the lung region generator is for one process: leave --coordinator out")
