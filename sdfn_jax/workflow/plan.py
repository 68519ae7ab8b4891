"""The order of B.5: which stages are there, which are missing and will run, and what they read."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, processes, run_identity, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs import box_record, box_table, lung_boxes, make_box_table
from sdfn_jax.lungs import segmenter as lungs_segmenter
from sdfn_jax.metrics import calibration
from sdfn_jax.models.preprocessing import Preprocessing, check_same_preprocessing
from sdfn_jax.models.weights import download
from sdfn_jax.radiographs import synthetic_dataset
from sdfn_jax.training.train import batch_size_problems, has_diverged, standing
from sdfn_jax.workflow import results, stages
from tfds_builders import prepare, prepared
from tfds_builders.prepared import prepared_directory

THERE, TO_DO, NOT_NEEDED = "there", "to do", "not needed"


@dataclasses.dataclass
class Step:
    """One line of the plan.

    Attributes:
      name: what is made.
      reads: what it is made from.
      writes: where it goes.
      state: `there`, `to do`, `not needed`, or how far an interrupted run has come.
      run: makes it.
      together: whether all processes of the run make it; otherwise the first does, and the others wait.
      notes: what a reader must know of it.
      counts: of a data set, {split: films}; empty where that is not known yet.
    """

    name: str
    reads: str
    writes: Path
    state: str
    run: Callable[[], None]
    together: bool = False
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def there(self) -> bool:
        """Whether what it makes can be read now."""
        return self.state == THERE


def make_plan(config: ConfigDict) -> list[Step]:
    """Returns the steps to a trained stage (and, of a classifier, its evaluation), in order.

    Nothing is made or changed by planning.

    Raises:
      UserError: naming everything that is missing and cannot be made, with the command or file that mends it; or a
        folder that holds another run than the one asked for.
    """
    problems: list[str] = []
    steps = [_synthetic(config.synthetic)] if "synthetic" in config else []
    coming = Path(config.synthetic.folder) if steps and not steps[0].there else None
    if config.stage == "lrg":
        steps += _lrg(config, "--config", True, coming, problems)
    else:
        steps += _imagenet(classifiers(config))
        steps += _two_branch_data(config, coming, problems)
        data = steps[-1]
        for stage in classifiers(config):
            flag = "--config" if stage is config else f"--config.{stage.stage}"
            steps.append(_classifier(stage, flag, data, problems))
        steps.append(_evaluation(config, data))
        problems += _too_few(config, data, steps)
        steps += _calibration(config, data, steps[-1])
    if problems:
        raise UserError("not everything that this needs is there:\n" + "\n".join(f"  * {text}" for text in problems))
    return steps


def follow(steps: list[Step], workdir: str) -> None:
    """Prints the plan and runs what is missing, saying how long each step took.

    Raises:
      UserError: where another process of the run has another plan.
    """
    processes.check_agreement(f"the plan for {workdir}", str([(step.name, step.state) for step in steps]))
    width = max(len(step.name) for step in steps)
    print(f"Plan for {workdir} (for research, not for diagnosis):")
    for number, step in enumerate(steps, start=1):
        print(f"  {number:>2}. {step.name:<{width}}  {step.state:<12}  {step.writes}")
        if step.state not in (THERE, NOT_NEEDED):
            print(f"      {'':<{width}}  {'reads':<12}  {step.reads}")
        for note in step.notes:
            print(f"      {'':<{width}}  {'note':<12}  {note}")
    begun = time.monotonic()
    for number, step in enumerate(steps, start=1):
        if step.state in (THERE, NOT_NEEDED):
            continue
        print(f"\n[{number}/{len(steps)}] {step.name}", flush=True)
        step_begun = time.monotonic()
        if step.together:
            step.run()
        else:
            processes.by_first(step.run)
        step_time, all_time = time.monotonic() - step_begun, time.monotonic() - begun
        print(
            f"[{number}/{len(steps)}] {step.name}: {_clock(step_time)} (in all {_clock(all_time)})",
            flush=True,
        )


def classifiers(config: ConfigDict) -> list[ConfigDict]:
    """Returns the classifying stages of a config, in the order of Table I, each with the data set that all share."""
    stages_before = [config.entire, config.lung] if config.stage == "fusion" else []
    return [_with_data(stage, config.data) for stage in stages_before] + [config]


def check_prepared(config: ConfigDict) -> Path:
    """Returns the folder of a stage's prepared data set, for modes that make nothing.

    Raises:
      UserError: where it is not there, or is not what would be prepared now; with the command that prepares it.
    """
    data, directory = config.data, prepared_directory(config.data)
    options = _data_options(data, _boxes(config))
    found = _look(data, options).prepared
    command = (
        f"python -m tfds_builders.prepare {data.name} --manual_dir={data.manual_dir} --data_dir={data.data_dir} "
        f"--size={data.size}" + (f" --boxes={options['boxes']}" if "boxes" in options else "")
    )
    if found is None:
        raise UserError(f"the prepared data set {directory} is not there; make it: {command}")
    if found.differences:
        raise UserError(
            f"{directory} is not what would be prepared from {data.manual_dir} now: {'; '.join(found.differences)}. "
            f"Put the files and settings back, or prepare it again: {command}"
        )
    for note in found.notes:
        print(f"{directory}: {note}")
    return directory


def _boxes(config: ConfigDict) -> Path | None:
    """Returns the box table of a stage's data set, there or not; None for the lung region generator's."""
    if config.stage == "lrg":
        return None
    return Path(config.data.boxes) if config.data.boxes else Path(config.lrg.workdir) / "lung_boxes.csv"


def _data_options(data: ConfigDict, boxes: Path | None) -> dict[str, Any]:
    """Returns what `prepare` takes beside name and folders."""
    options = {name: data[name] for name in ("size", "require_complete", "skip_bad_files")}
    if boxes is not None:
        options |= {name: data[name] for name in ("label_version", "validation_share", "validation_seed")}
        options["boxes"] = boxes
    return options


def _look(data: ConfigDict, options: Mapping[str, Any]) -> prepare.Look:
    look = functools.partial(prepare.look, data.name, manual_dir=data.manual_dir, data_dir=data.data_dir, **options)
    if processes.several():
        processes.by_first(look)  # what it has to read and compare, the others need not read again
    return look()


def _with_data(stage: ConfigDict, data: ConfigDict) -> ConfigDict:
    stage = stage.copy_and_resolve_references()
    with stage.unlocked():
        stage.data = data
    return stage


def _synthetic(config: ConfigDict) -> Step:
    folder = Path(config.folder)
    jsrt = {"films": config.jsrt_films, "seed": config.seed}
    chestxray14 = {"films": config.chestxray14_films, "seed": config.seed, "test_share": config.test_share}

    def make() -> None:
        synthetic_dataset.write_jsrt(folder / "jsrt", **jsrt)
        synthetic_dataset.write_chestxray14(folder / "chestxray14", **chestxray14)

    drawn = [_is_drawn(folder / "jsrt", jsrt), _is_drawn(folder / "chestxray14", chestxray14)]
    reads = f"{config.jsrt_films} films with lung masks, {config.chestxray14_films} with findings"
    return Step("synthetic radiographs", reads, folder, THERE if all(drawn) else TO_DO, make)


def _is_drawn(folder: Path, settings: dict) -> bool:
    if not synthetic_dataset.is_synthetic(folder):
        return False
    found = synthetic_dataset.read_settings(folder, settings)
    for name, value in settings.items():
        if found[name] != value:
            raise UserError(
                f"{folder} holds synthetic radiographs with {name} = {found[name]}; asked for is {value}. What "
                "was made from them would not fit the new ones: give the settings they were drawn with, or new folders "
                "for all (--config.synthetic.folder, manual_dir, data_dir, workdir)."
            )
    return synthetic_dataset.is_whole(folder)


def _data_set(
    data: ConfigDict,
    flag: str,
    boxes: Path | None,
    coming: Path | None,
    readers: list[ConfigDict],
    missing: list[str],
    problems: list[str],
) -> Step:
    """Returns the step of a data set, which is prepared again where that spoils no trained run.

    Args:
      data: its config.
      flag: how the command line names this config.
      boxes: the table of lung boxes, there or not; None for a set without any.
      coming: folder of synthetic radiographs that an earlier step makes; None where there are none to make.
      readers: configs of the stages that are trained on it.
      missing: takes what keeps it from being prepared.
      problems: takes what keeps it from being used.
    """
    directory = prepared_directory(data)
    options = _data_options(data, boxes)

    def make() -> None:
        prepare.prepare(data.name, manual_dir=data.manual_dir, data_dir=data.data_dir, **options)

    reads = data.manual_dir if boxes is None else f"{data.manual_dir}, {boxes}"
    step = Step(f"data set {data.name}", reads, directory, TO_DO, make)
    if coming is not None and Path(data.manual_dir).is_relative_to(coming):
        return step  # whether a set that is there fits is seen when they are drawn
    found = _look(data, options)
    trained = _began(readers)
    if found.prepared is not None and not found.prepared.differences:
        metadata = found.prepared.metadata
        step.state = THERE
        step.counts = {split: each["images"] for split, each in metadata["splits"].items()}
        known = data.manual_dir if Path(data.manual_dir).is_dir() else None
        step.notes = (_counted(metadata.get("source", known), step.counts), *found.prepared.notes)
    elif found.prepared is not None and trained:
        problems.append(
            f"{directory} is not what would be prepared from {data.manual_dir} now: "
            f"{'; '.join(found.prepared.differences)}. {', '.join(trained)} began with it as it is. To keep what was "
            f"trained, put the files and settings back, or say where they are ({flag}.manual_dir=FOLDER). To train on "
            f"what is there now, give new folders ({flag}.data_dir=FOLDER, and workdir of these stages), or delete "
            "these runs."
        )
    elif not Path(data.manual_dir).is_dir():
        missing.append(
            f"the {data.name} download: no folder {data.manual_dir}. Put or link it there, or say where it is: "
            f"{flag}.manual_dir=FOLDER. tfds_builders/{data.name}/README.md says where to get it."
        )
    elif found.problem is not None:
        missing.append(f"the {data.name} download: {found.problem}")
    else:
        step.counts = found.counts
        again = [] if found.prepared is None else [f"prepared again: {'; '.join(found.prepared.differences)}"]
        step.notes = (_counted(data.manual_dir, step.counts), *again)
    return step


def _counted(source: str | None, counts: Mapping[str, int]) -> str:
    splits = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    films = f"{sum(counts.values()):,} films ({splits})"
    return films if source is None else f"from {source}: {films}"


def _too_few(config: ConfigDict, data: Step, steps: list[Step]) -> list[str]:
    """Returns what would stop a later step for want of films, where the counts of the data set are known."""
    training = [stage for stage in classifiers(config) if not _step_of(steps, stage).there]
    needed = ("train", "validation", "test") if training else ("validation", "test")
    if not data.counts or all(step.there for step in steps[steps.index(data) :]):
        return []
    absent = [split for split in needed if not data.counts.get(split)]
    problems = []
    if "test" in absent:
        problems.append(
            f"no film of test_list.txt is in {config.data.manual_dir}: the evaluation on test needs some. Bring them"
        )
    if absent and absent != ["test"]:
        problems.append(
            f"no film of train_val_list.txt in {config.data.manual_dir} goes to {' or '.join(set(absent) - {'test'})}: "
            "bring more patients, or set aside another --config.data.validation_share"
        )
    return problems + [
        f"{_flag_of(config, stage)}.batch_size={stage.batch_size}: more than the {data.counts['train']:,} films of "
        "train; give a smaller one, or bring more films"
        for stage in training
        if 0 < data.counts.get("train", 0) < stage.batch_size
    ]


def _step_of(steps: list[Step], stage: ConfigDict) -> Step:
    (step,) = (step for step in steps if step.writes == Path(stage.workdir))
    return step


def _flag_of(config: ConfigDict, stage: ConfigDict) -> str:
    return "--config" if stage is config else f"--config.{stage.stage}"


def _lrg(config: ConfigDict, flag: str, needed: bool, coming: Path | None, problems: list[str]) -> list[Step]:
    missing: list[str] = []
    data = _data_set(config.data, f"{flag}.data", None, coming, [config], missing, problems)
    inputs = stages.data_inputs(data.writes) if data.there else {}
    state = _trained(config, inputs)
    if state == THERE:
        data.state = THERE if data.there else NOT_NEEDED
    elif not needed:
        data.state = state = NOT_NEEDED
    else:
        problems += missing + batch_size_problems(config, flag) + _too_few_to_segment(config, flag, data)
        if missing and config.data.name == "jsrt":
            problems.append(
                "JSRT needs a registration; open data serve as well: "
                f"{flag}.data.name=montgomery {flag}.data.manual_dir=FOLDER"
            )
    name = "lung region generator"
    return [
        data,
        Step(
            name,
            str(data.writes),
            Path(config.workdir),
            state,
            lambda: stages.train_lrg(config, data.writes),
            together=True,
        ),
    ]


def _too_few_to_segment(config: ConfigDict, flag: str, data: Step) -> list[str]:
    films = sum(count for split, count in data.counts.items() if split != f"fold_{config.test_fold}")
    training = films - stages.held_out(config, films)
    if not data.counts or training >= config.batch_size:
        return []
    return [
        f"{flag}.batch_size={config.batch_size}: more than the {training:,} films that are left for training; give a "
        "smaller one, or bring more films"
    ]


def _trained(config: ConfigDict, inputs: dict[str, str]) -> str:
    stored = standing(config.workdir)
    if stored is None:
        return THERE if _imported(config) else TO_DO
    run_identity.check_same_run(config.workdir, stored, config, inputs)
    best = checkpoint.best_metadata(config.workdir)
    if stored["finished"] and best is not None and has_diverged(best["validation"]["loss"]):
        raise UserError(
            f"{config.workdir} holds a run whose training has diverged (learning_rate {config.learning_rate:g}): "
            "delete it and train with a smaller one"
        )
    return THERE if stored["finished"] else f"to go on after epoch {stored['epochs_done']} of {config.num_epochs}"


def _imported(config: ConfigDict) -> bool:
    """Returns whether a network fine-tuned elsewhere (`pretrained.imported`) stands in for the trained stage."""
    stored = checkpoint.best_metadata(config.workdir)
    if stored is None or not run_metadata.is_imported(stored):
        return False
    (imported,) = run_metadata.read(stored).imported.values()
    if stored["stage"] != config.stage:
        raise UserError(
            f"{config.workdir} holds {imported.file}, imported as an extractor of the {stored['stage']} branch, not of "
            f"the {config.stage} branch: give another folder, or import the file again with "
            f"--config=configs/classifier.py:{config.stage}"
        )
    check_same_preprocessing(Preprocessing.of(stored["config"]), config, config.workdir, any_size=False)
    if stored["config"]["model"] != run_identity.as_json(config)["model"]:
        raise UserError(f"{config.workdir} holds {imported.file}, another network than --config.model")
    return True


def _two_branch_data(config: ConfigDict, coming: Path | None, problems: list[str]) -> list[Step]:
    if config.data.boxes:
        boxes = Path(config.data.boxes)
        if not boxes.is_file():
            problems.append(f"the box table --config.data.boxes={boxes}: no such file")
        return [_data_set(config.data, "--config.data", boxes, coming, classifiers(config), problems, problems)]
    boxes = _boxes(config)
    data = _data_set(config.data, "--config.data", boxes, coming, classifiers(config), problems, problems)
    drawn_later = coming is not None and Path(config.data.manual_dir).is_relative_to(coming)
    table = _made_table(config, boxes, look_at_films=not data.there and not drawn_later)
    if table is not None and table.differences:
        _make_boxes_again(config, boxes, table, data, problems)
    usable = table is not None and not table.differences
    generator = _lrg(config.lrg, "--config.lrg", not data.there and not usable, coming, problems)
    step = _box_table(config, boxes, table, generator[-1], needed=not data.there)
    known = prepared.data_metadata(data.writes) if data.there else {}
    drawn = known.get("drawings", _is_drawn_folder(config.data.manual_dir, coming))
    if _learns_from_drawings(config.lrg, coming) and not drawn:
        step.notes = (*step.notes, lungs_segmenter.TRAINED_ON_SYNTHETIC)
    if step.state == TO_DO and not drawn_later and Path(config.data.manual_dir).is_dir():
        problems += _unclear_films(config.data.manual_dir)
    return [*generator, step, data]


def _learns_from_drawings(config: ConfigDict, coming: Path | None) -> bool:
    """Returns whether the lung region generator was, or will be, trained on synthetic radiographs."""
    trained = checkpoint.best_metadata(config.workdir)
    return bool(trained.get("drawings")) if trained is not None else _is_drawn_folder(config.data.manual_dir, coming)


def _is_drawn_folder(folder: str, coming: Path | None) -> bool:
    """Returns whether the films of a folder are, or will be, synthetic."""
    will_be = coming is not None and Path(folder).is_relative_to(coming)
    return will_be or synthetic_dataset.is_synthetic(Path(folder))


def _made_table(config: ConfigDict, boxes: Path, look_at_films: bool) -> box_record.Found | None:
    """Returns what is known of the box table that the LRG made; None where there is none."""
    if not boxes.is_file():
        return None
    films: dict[str, Path] = {}
    if look_at_films and Path(config.data.manual_dir).is_dir():
        with contextlib.suppress(UserError):  # said of the data set
            films = {path.name: path for path in make_box_table.find_radiographs(config.data.manual_dir).films}
    return box_record.compare(boxes, lung_boxes.PostProcessing(**config.lrg.postprocessing), films)


def _make_boxes_again(
    config: ConfigDict, boxes: Path, table: box_record.Found, data: Step, problems: list[str]
) -> None:
    """Has the data set prepared again, after its box table, if that spoils no trained run and nothing made by hand."""
    otherwise = f"{boxes} would be made otherwise now: {'; '.join(table.differences)}"
    trained = _began(classifiers(config)) if data.there else []
    if table.mended or not table.recorded:
        problems.append(
            f"{otherwise}. It {'was' if table.mended else 'may have been'} changed by hand: keep it by naming it, "
            f"--config.data.boxes={boxes}, or delete it to have it made again"
        )
    elif trained:
        problems.append(
            f"{otherwise}. {', '.join(trained)} began with it as it is: set it as it was, or give new folders "
            "(--config.data.data_dir=FOLDER, and workdir of these stages and of the lung region generator), or delete "
            "these runs"
        )
    elif data.there:
        data.state = TO_DO
        data.notes = (*data.notes, "prepared again: its lung boxes are made again")


def _unclear_films(folder: str) -> list[str]:
    try:
        make_box_table.find_radiographs(folder)
    except UserError as error:
        return [f"lung boxes: {error}"]
    return []


def _began(readers: list[ConfigDict]) -> list[str]:
    """Returns the folders of the stages whose training has begun."""
    return [stage.workdir for stage in readers if standing(stage.workdir) is not None]


def _box_table(config: ConfigDict, boxes: Path, table: box_record.Found | None, generator: Step, needed: bool) -> Step:
    films, processing = Path(config.data.manual_dir), lung_boxes.PostProcessing(**config.lrg.postprocessing)
    state, notes = TO_DO if needed else NOT_NEEDED, []
    if table is not None and table.differences:
        notes.append(f"made again: {'; '.join(table.differences)}")
    elif table is not None:
        state = THERE
        if generator.there:
            _check_box_table(boxes, checkpoint.best_metadata(config.lrg.workdir)["digest"])

    def make() -> None:
        segmenter = lungs_segmenter.Segmenter.load(config.lrg.workdir, config.lrg.evaluation_batch_size)
        found = make_box_table.find_radiographs(films)
        rows = make_box_table.make_box_table(segmenter, found.films, boxes, processing, config.data.skip_bad_files)
        print(box_table.rule_counts(rows))
        make_box_table.report_left_out(found, boxes)

    return Step("lung boxes", f"{films}, {config.lrg.workdir}", boxes, state, make, notes=tuple(notes))


def _check_box_table(boxes: Path, digest: str) -> None:
    makers = {row.checkpoint for row in box_table.read_box_table(boxes).values()}
    if makers - {digest}:
        raise UserError(
            f"{boxes} was made by another LRG ({min(makers - {digest})[:12]}) than the one beside it ({digest[:12]}). "
            "Delete it to have it made anew, or keep it by naming it: --config.data.boxes=" + str(boxes)
        )


def _classifier(config: ConfigDict, flag: str, data: Step, problems: list[str]) -> Step:
    upstream = stages.upstream(config)
    inputs = stages.data_inputs(data.writes) if data.there else {}
    state = _trained(config, inputs | stages.starting_points(config, upstream))
    if state != THERE:
        missing = _missing_start(config, flag, upstream)
        problems += [missing] if missing is not None else []
        problems += batch_size_problems(config, flag)
    name = "fusion network" if upstream else f"extractor, {config.stage} branch"
    reads = ", ".join([str(data.writes), *(upstream.values() or [config.pretrained])])
    return Step(
        name,
        reads,
        Path(config.workdir),
        state,
        lambda: stages.train_classifier(config, data.writes),
        together=True,
    )


def _imagenet(stages_shown: list[ConfigDict]) -> list[Step]:
    """Returns the step that brings the published ImageNet weights, where an untrained extractor starts from them."""
    asked = [stage for stage in stages_shown if stage.get("pretrained") == stages.IMAGENET]
    if all(standing(stage.workdir) or _imported(stage) for stage in asked):
        return []
    path = download.cached()
    return [Step("ImageNet weights", download.URL, path, THERE if path.is_file() else TO_DO, download.fetch)]


def _missing_start(config: ConfigDict, flag: str, upstream: dict[str, str]) -> str | None:
    """Returns what a classifier cannot start without and does not have, with what mends it; None where all is well."""
    if upstream:
        for branch in upstream:
            if config[branch].model.to_dict() != config.model.to_dict():
                return f"config.model differs from config.{branch}.model: fusion takes over that network as it is"
        return None
    path = stages.weights_file(config)
    if path is None or (config.pretrained == stages.IMAGENET and not path.is_file()):
        return None
    if not path.is_file():
        return (
            f"the weights that the {config.stage} extractor starts from: no file {path}. {flag}.pretrained takes a "
            f"weights file (docs/weights.md lists those that are published), imagenet (the paper's: torchvision's, "
            "downloaded once), or random (not the paper's recipe)"
        )
    try:
        stages.load_pretrained(config)
    except UserError as error:
        return f"{flag}.pretrained: {error}"
    return None


def _evaluation(config: ConfigDict, data: Step) -> Step:
    shown = classifiers(config)
    fresh = data.there and all(results.is_fresh(stage, data.writes, "test") for stage in shown)
    reads = ", ".join([str(data.writes), *(stage.workdir for stage in shown)])
    writes = results.folder(config)
    state = THERE if fresh and results.is_made(config, shown) else TO_DO
    return Step(
        "evaluation on test",
        reads,
        writes,
        state,
        lambda: results.make(config, shown, data.writes),
        together=True,
    )


def _calibration(config: ConfigDict, data: Step, evaluation: Step) -> list[Step]:
    """Returns the step that gives stages their calibration which were evaluated before there was any."""
    shown = classifiers(config)
    if not evaluation.there or all(results.is_calibrated(stage, data.writes) for stage in shown):
        return []  # whatever is evaluated now is calibrated too
    return [
        Step(
            "calibration",
            ", ".join(stage.workdir for stage in shown),
            Path(config.workdir) / calibration.FILE,
            TO_DO,
            lambda: results.calibrate(shown, data.writes),
            together=True,
        )
    ]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} min"
