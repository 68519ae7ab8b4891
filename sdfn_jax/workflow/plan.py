"""The plan (B.5): which stages are done, which are missing and will run, and what they read."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sdfn_jax.core import backend, job_record, processes, progress, run_identity
from sdfn_jax.core.errors import UserError
from sdfn_jax.workflow import seeds, stages, time_left
from sdfn_jax.workflow.classifier_stages import (
    Calibration,
    ClassifierResults,
    Ensembles,
    PublishedWeights,
    Report,
    TrainedClassifier,
)
from sdfn_jax.workflow.data_stages import FoundData, PreparedDataSet, SyntheticRadiographs, box_table_of
from sdfn_jax.workflow.lung_stages import BoxTable, LungRegionGenerator, ShippedGenerator
from sdfn_jax.workflow.planning import NOT_NEEDED, THERE, Stage


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of the plan.

    Attributes:
      name: what is made.
      reads: what it is made from.
      writes: where it goes.
      state: `there`, `to do`, `not needed`, or how far an interrupted run has come.
      notes: what a reader must know about it.
      together: whether all processes of the run make it; otherwise process 0 does, and the others wait.
      sets_pace: whether it trains a whole network, whose speed tells that of the steps after it.
      work: returns the operations of its networks, roughly.
      run: makes it.
    """

    name: str
    reads: str
    writes: Path
    state: str
    notes: tuple[str, ...]
    together: bool
    sets_pace: bool
    work: Callable[[], float]
    run: Callable[[], None]

    @property
    def there(self) -> bool:
        """Whether what it makes can be read now."""
        return self.state == THERE


def make_plan(config: ConfigDict) -> list[Step]:
    """Returns the steps to a trained stage (and, for a classifier, its evaluation), in order; makes nothing.

    Raises:
      UserError: naming everything that is missing and cannot be made, with its remedy; or a folder that holds a
        different run than the requested one.
    """
    needed = job(config)
    problems: list[str] = []
    for stage in needed:  # in order: of two runs that are not the requested ones, the first is named
        problems += stage.status.conflicts
    to_run = _to_run(needed)
    for stage in needed:
        problems += stage.missing() if stage in to_run else []
    if problems:  # several stages may have the same
        lines = "\n".join(f"  * {text}" for text in dict.fromkeys(problems))
        raise UserError(f"something that this needs is missing:\n{lines}")
    return [_step(stage, stage in to_run) for stage in needed]


def job(config: ConfigDict) -> list[Stage]:
    """Returns the stages of the job that ends with the stage of a config, each after those that it needs."""
    synthetic = [SyntheticRadiographs(config.synthetic)] if "synthetic" in config else []
    if config.stage == "lrg":
        return [*synthetic, *_lungs(config, "--config", synthetic)]
    of_each_seed = [classifiers(one) for one in seeds.of_each(config)]
    shown = [stage for of_seed in of_each_seed for stage in of_seed]
    found = FoundData(config.data, box_table_of(config), synthetic)
    lungs: list[Stage] = []
    table = None
    if not config.data.boxes:
        lungs = _lungs(config.lrg, "--config.lrg", synthetic)
        table = BoxTable(config, lungs[-1], found, shown)
        lungs = [*lungs, table]
    data = PreparedDataSet(found, "--config.data", shown, table)
    before = PublishedWeights.where_needed(shown)
    trained: list[TrainedClassifier] = []
    for of_seed in of_each_seed:
        made: list[TrainedClassifier] = []
        for stage in of_seed:  # in the table's order: a fusion network is last, and needs those before it
            flag = "--config" if stage.stage == config.stage else f"--config.{stage.stage}"
            needs = made if stages.upstream(stage) else before
            made.append(TrainedClassifier(stage, flag, data, needs, name_seed=seeds.several(config)))
        trained += made
    config = seeds.end(config)
    shown = classifiers(config)
    together = [Ensembles(shown, trained)] if len(of_each_seed) > 1 else []
    evaluation = ClassifierResults(config, shown, data, trained, together)
    calibration = Calibration(config, shown, data, evaluation)
    after = [stage for stage in (calibration, Report(config, shown, evaluation)) if stage.asked_for]
    return [*synthetic, *before, *lungs, data, *trained, *together, evaluation, *after]


def classifiers(config: ConfigDict) -> list[ConfigDict]:
    """Returns the classifying stages of a config, in the order of Table I, each with the data and findings of all."""
    *before, last = stages.classifiers(config)
    return [*(_with_data(stage, config) for stage in before), last]


def follow(steps: list[Step], workdir: str) -> None:
    """Prints the plan and runs what is missing, timing each step.

    Raises:
      UserError: if another process of the run has a different plan.
    """
    processes.check_agreement(f"the plan for {workdir}", str([(step.name, step.state) for step in steps]))
    _print_plan(steps, workdir)
    hardware = backend.describe()
    begun = time.monotonic()
    for number, step in enumerate(steps, start=1):
        if step.state in (THERE, NOT_NEEDED):
            continue
        place = f"[{number}/{len(steps)}] {step.name}"
        print(f"\n{place}", flush=True)
        step_begun, finished = time.monotonic(), False
        to_come = [each.work for each in steps[number - 1 :] if each.state not in (THERE, NOT_NEEDED)]
        try:
            with time_left.told(to_come) if step.sets_pace else contextlib.nullcontext():
                if step.together:
                    step.run()
                else:
                    processes.by_first(step.run)
            finished = True
        finally:
            now = time.monotonic()
            if processes.is_first():
                job_record.add(workdir, job_record.StepTime(step.name, now - step_begun, hardware, finished))
        passed, in_all = progress.clock(now - step_begun), progress.clock(now - begun)
        print(f"{place}: done in {passed} ({in_all} in all)", flush=True)


def _lungs(config: ConfigDict, flag: str, synthetic: Sequence[Stage]) -> list[Stage]:
    """Returns the stages to a lung region generator, which is the last."""
    if config.get("shipped", False):
        return [ShippedGenerator(config)]
    data = PreparedDataSet(FoundData(config.data, None, synthetic), f"{flag}.data", [config])
    return [data, LungRegionGenerator(config, flag, data)]


def _to_run(stages: list[Stage]) -> list[Stage]:
    """Returns the stages that are missing and that the end of the job needs, directly or not."""
    to_run: list[Stage] = []
    for stage in reversed(stages):
        users = [other for other in stages if stage in other.needs]
        if not stage.there and (not users or any(user in to_run for user in users)):
            to_run.append(stage)
    return to_run


def _step(stage: Stage, to_run: bool) -> Step:
    state = stage.status.state if to_run or stage.there else NOT_NEEDED
    of_stage = (stage.name, stage.reads, stage.writes, state, stage.status.notes)
    return Step(*of_stage, stage.together, stage.sets_pace, stage.work, stage.run)


def _print_plan(steps: list[Step], workdir: str) -> None:
    width = max(len(step.name) for step in steps)
    print(f"Plan for {workdir} (for research, not for diagnosis):")
    for number, step in enumerate(steps, start=1):
        print(f"  {number:>2}. {step.name:<{width}}  {step.state:<12}  {step.writes}")
        if step.state not in (THERE, NOT_NEEDED):
            print(f"      {'':<{width}}  {'reads':<12}  {step.reads}")
        for note in step.notes:
            print(f"      {'':<{width}}  {'note':<12}  {note}")


def _with_data(stage: ConfigDict, job_config: ConfigDict) -> ConfigDict:
    """Returns a stage inside a job's config with the job's data; a whole network also with how it finds lungs."""
    shared = ("data", "lrg", "synthetic") if stage.stage == "fusion" else ("data",)
    stage = stage.copy_and_resolve_references()
    with stage.unlocked():
        for name in shared:
            if name in job_config:
                stage[name] = job_config[name]
        stage.findings, stage.uncertain = (run_identity.setting(job_config, name) for name in ("findings", "uncertain"))
    return stage
