"""The stages at work: what each reads and starts from, for the one trainer or for evaluation."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, processes, progress, run_identity, run_metadata, sources
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs import contrast as lungs_contrast
from sdfn_jax.models import sdfn
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.preprocessing import Preprocessing, check_same_preprocessing
from sdfn_jax.radiographs import findings as radiographs_findings
from sdfn_jax.training import evaluate, evaluate_lungs, features, labelling, tasks
from sdfn_jax.training.input_pipeline import Examples, Rows, steps_per_epoch
from sdfn_jax.training.resume import standing
from sdfn_jax.training.steps import check_batch_size, device_mesh
from sdfn_jax.training.train import train
from sdfn_jax.workflow import starting_weights
from tfds_builders.prepared import data_metadata, data_version
from tfds_builders.registry import FOLDS


def data_inputs(directory: Path) -> dict[str, str]:
    """Returns {what of a data set decides a training: digest}."""
    return sources.of_data(data_metadata(directory))


def train_lrg(config: ConfigDict, data: Path) -> None:
    """Trains the lung region generator, or resumes (B.2).

    Args:
      config: of `configs/lrg.py`. All films outside `test_fold` are read; `validation_share` of them choose the epoch.
      data: the prepared jsrt or montgomery data set.
    """
    inputs = data_inputs(data)
    with processes.writing_alone(config.workdir):
        _check_before_training(config, inputs)
        folds = _folds(data, data_metadata(data), config.test_fold)
        films = Examples(data, folds)
        order = np.random.default_rng(config.seed).permutation(len(films))
        count = held_out(config, len(films))
        training, validation = films.take(np.sort(order[count:])), films.take(np.sort(order[:count]))
        normalisation = _normalisation(training, config.contrast)
        task = tasks.segmentation(config, normalisation)
        train(
            task,
            config,
            training=training,
            validation=validation,
            initial_variables=lambda: initial_variables(task.model, config.seed, task.inputs),
            metadata=_metadata(config, inputs, data, normalisation=normalisation),
        )


def held_out(config: ConfigDict, films: int) -> int:
    """Returns how many of the LRG's films choose the epoch."""
    return max(1, round(config.validation_share * films))


# {stage of a classifier: the stages, inside its config, whose networks it starts from}
STARTS_FROM = {"fusion": ("entire", "lung"), "finetuned": ("fusion",)}


def classifiers(config: ConfigDict) -> list[ConfigDict]:
    """Returns the classifying stages inside a config, and itself: in the order of Table I, as they are made."""
    before = (config[name] for name in STARTS_FROM.get(config.stage, ()))
    return [*(each for stage in before for each in classifiers(stage)), config]


def upstream(config: ConfigDict) -> dict[str, str]:
    """Returns {stage: folder of its run} of what a fusion network or a fine-tuned one starts from, or nothing."""
    return {name: config[name].workdir for name in STARTS_FROM.get(config.stage, ())}


def train_classifier(config: ConfigDict, data: Path) -> None:
    """Trains an extractor (B.3), or the fusion head on those of two earlier runs (B.4), or all of a fusion network.

    It resumes if its run has begun.

    Args:
      config: of `configs/classifier.py` or `configs/fusion.py`.
      data: the prepared chestxray14 data set.
    """
    before = upstream(config)
    if not before and (there := starting_weights.remote(config)) is not None:
        there.fetch()
    inputs = data_inputs(data) | starting_points(config, before)
    with processes.writing_alone(config.workdir):
        _check_before_training(config, inputs)
        films = Examples(data, ["train"]), Examples(data, ["validation"])
        of_run = labelling.of_training(config, data_metadata(data), *films)
        task = tasks.classification(config, of_run)
        starts, source = _starts(config, before, of_run.findings)
        variables = _initial_variables(task, config)
        for name, start in starts.items():
            for kind, tree in start.items():
                variables[kind][name] = tree
        learned = {"findings": list(of_run.findings), "label_version": data_metadata(data)["label_version"]}
        metadata = _metadata(config, inputs, data, **learned, **source)
        rows: tuple[Examples, Examples] | tuple[Rows, Rows] = films
        if config.get("cache_features", False):
            rows = _cached_features(task, config, variables, *films, metadata)
            task = tasks.fusion_head(task, config, variables)
            variables = {"params": {"head": variables["params"]["head"]}}
        train(
            task,
            config,
            training=rows[0],
            validation=rows[1],
            initial_variables=lambda: variables,
            metadata=metadata,
        )


def _initial_variables(task: tasks.Task, config: ConfigDict) -> dict:
    """Returns the random variables of a classifier's config.

    A fusion network draws from a stream of its own. From its extractors' one, its head's weights of the first branch
    would be that extractor's first head again, scaled: its features fit those, the other branch's none of its own.
    """
    branches = len(config.branches)
    seed = config.seed if branches == 1 else (config.seed, branches)
    return initial_variables(task.model, seed, task.inputs, train=False)


def _cached_features(
    task: tasks.Task, config: ConfigDict, variables: dict, training: Examples, validation: Examples, metadata: dict
) -> tuple[Rows, Rows]:
    """Returns both splits as the frozen extractors' features, kept in `<workdir>/features`."""
    origin = {
        **metadata["inputs"],
        "data_version": metadata["data_version"],
        "branches": list(config.branches),
        "backbone": run_identity.backbone(config),
        "model": config.model.to_dict(),
        "preprocessing": Preprocessing.of(config).as_dict(),
        "dtype": run_identity.precision(config),
    }
    if chosen := run_identity.setting(config, "findings"):  # all of them follow from the data
        origin["findings"] = list(chosen)
    check_batch_size(config)
    steps_per_epoch(training, config.batch_size)  # whatever the trainer would refuse is reported before the long work
    both = run_identity.setting(config, "test_time_flip")
    extractors = features.Extractors(task, config, variables, device_mesh(jax.local_devices()))
    folder = Path(config.workdir) / "features"
    return (
        features.cached(extractors, training, folder / "train.npy", mirrored=config.flip, origin=origin),
        features.cached(extractors, validation, folder / "validation.npy", mirrored=both, origin=origin),
    )


def starting_points(config: ConfigDict, before: dict[str, str]) -> dict[str, str]:
    """Returns {what a classifier starts from: digest}, as far as it exists."""
    if not before:
        digest = starting_weights.digest(config)
        return {} if digest is None else {"pretrained": digest}
    found = {branch: checkpoint.best_metadata(workdir) for branch, workdir in before.items()}
    return {branch: metadata["digest"] for branch, metadata in found.items() if metadata is not None}


def evaluate_lrg(config: ConfigDict, data: Path) -> str:
    """Scores a trained LRG on its test fold; writes into its folder and returns the table."""
    if config.test_fold is None:
        raise UserError(
            "this LRG was trained on all films, and none is left for evaluation: train with --config.test_fold=0 (to "
            "4), or run --mode=cross_validate"
        )
    _, metadata = checkpoint.read_best(config.workdir)
    with processes.writing_alone(config.workdir):
        results = evaluate_lungs.score_fold(config, data, config.test_fold)
        origin = _segmentation_origin(config, data, {f"fold_{config.test_fold}": metadata["digest"]})
        where = evaluate.evaluation_folder(config.workdir, "test")
        page = where / f"worst_fold_{config.test_fold}.png"
        evaluate_lungs.draw_worst(config, data, results, page, drawings=origin["drawings"])
        return evaluate_lungs.write_segmentation(where, results, origin)


def cross_validate(config: ConfigDict, data: Path) -> str:
    """Trains the LRG five times, each without one fold, and scores each on the fold it has not seen (B.2.3).

    Every fold's run is in `<workdir>/fold_<k>` and resumes by itself.

    Returns:
      The table of Dice and IoU per fold, with mean and sd over all films.
    """
    missing = [f"fold_{fold}" for fold in range(FOLDS) if f"fold_{fold}" not in data_metadata(data)["splits"]]
    if missing:
        raise UserError(
            f"{data} has no films in {', '.join(missing)} (a film's fold is its official number modulo 5): five folds "
            "need films in each. Bring more films, or hold one fold out: --config.test_fold=0 (to 4)"
        )
    with processes.writing_alone(config.workdir):
        return _cross_validate(config, data)


def _cross_validate(config: ConfigDict, data: Path) -> str:
    results, digests = [], {}
    where = Path(config.workdir) / "cross_validation"
    for fold in range(FOLDS):
        one = config.copy_and_resolve_references()
        with one.unlocked():
            one.test_fold = fold
            one.workdir = f"{config.workdir}/fold_{fold}"
        print(f"\nfold {fold} of 0-{FOLDS - 1}: training without it", flush=True)
        train_lrg(one, data)
        scored = evaluate_lungs.score_fold(one, data, fold)
        page = where / f"worst_fold_{fold}.png"
        evaluate_lungs.draw_worst(one, data, scored, page, drawings=data_metadata(data)["drawings"])
        results += scored
        digests[f"fold_{fold}"] = checkpoint.best_metadata(one.workdir)["digest"]
    origin = _segmentation_origin(config, data, digests)
    return evaluate_lungs.write_segmentation(where, results, origin)


def _check_before_training(config: ConfigDict, inputs: dict[str, str]) -> None:
    stored = standing(config.workdir)
    if stored is not None:
        run_identity.check_same_run(config.workdir, stored, config, inputs)


def _starts(config: ConfigDict, before: dict[str, str], findings: tuple[str, ...]) -> tuple[dict[str, dict], dict]:
    """Returns {branch, or `head`: its variables} to start from, and the checkpoint's entries about weights files.

    Both are empty for random weights.
    """
    if not before:
        if config.pretrained == starting_weights.RANDOM:
            return {}, {}
        found = starting_weights.load(config)
        print(found.describe())
        source = {"source": found.source, "file": found.file, "sha256": found.sha256}
        return {config.branches[0]: found.variables}, {"pretrained": source}
    starts: dict[str, dict] = {}
    origins: dict[str, dict] = {}
    for workdir in before.values():
        variables, metadata = checkpoint.read_best(workdir)
        check_same_preprocessing(Preprocessing.of(metadata["config"]), config, workdir, any_size=False)
        if (its := radiographs_findings.named_in(metadata)) != findings:
            raise UserError(
                f"{workdir}: this network finds {', '.join(its)}, but the stage {config.stage} is to find "
                f"{', '.join(findings)}: both take the same --config.findings"
            )
        branches = metadata["config"]["branches"]
        names = [*branches, "head"] if config.stage == "finetuned" else branches
        starts |= {name: sdfn.branch_variables(variables, name) for name in names}
        origins |= dict.fromkeys(branches, metadata)
    return starts, run_metadata.of_fusion(origins)


def _metadata(config: ConfigDict, inputs: dict[str, str], data: Path, **of_stage) -> dict:
    drawings = bool(data_metadata(data)["drawings"])
    return run_metadata.make(config, inputs, data_version=data_version(data), drawings=drawings, **of_stage)


def _folds(data: Path, metadata: dict, test_fold: int | None) -> list[str]:
    folds = [split for split in metadata["splits"] if split != f"fold_{test_fold}"]
    if not folds:
        raise UserError(f"{data} has no films outside fold {test_fold}")
    return folds


def _normalisation(training: Examples, contrast: str) -> dict[str, float]:
    """Returns mean and standard deviation of the training films after the contrast normalisation."""
    sums = np.zeros(3)
    for index in progress.bar(range(len(training)), what="measure the films' grey levels", unit="film"):
        film = lungs_contrast.contrast(training[index]["image"], contrast).astype(np.float64)
        sums += film.size, film.sum(), np.square(film).sum()
    mean = sums[1] / sums[0]
    return {"mean": float(mean), "std": float(np.sqrt(sums[2] / sums[0] - mean**2))}


def _segmentation_origin(config: ConfigDict, data: Path, checkpoints: dict[str, str]) -> dict:
    metadata = data_metadata(data)
    return {
        "data_version": data_version(data),
        "drawings": metadata["drawings"],
        "size": config.data.size,
        "seed": config.seed,
        "checkpoints": checkpoints,
    }
