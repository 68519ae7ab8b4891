"""The card of a network that is published: data, recipe, figures that exist, limits; as the Hugging Face hub wants it.

Mitchell et al., *Model Cards for Model Reporting*, FAT* 2019.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdfn_jax.core import run_identity, run_metadata
from sdfn_jax.lungs import shipped
from sdfn_jax.metrics import bootstrap, scores
from sdfn_jax.metrics.evaluation import caveats, evaluation_folder, read_evaluation
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.radiographs.findings import display_name, named_in

_REPLICATES, _SEED = 2000, 0
# Settings of a recipe that say something else elsewhere in the card, or nothing to a reader.
_NOT_SHOWN = {"stage", "branches", "findings", "data", "preprocessing", "backbone", "model", "test_time_flip"}
_UNKNOWN = "unknown: the network was imported from a weights file"


def card(run: Path, metadata: Mapping[str, Any], lrg: Mapping[str, Any] | None) -> str:
    """Returns a classifier's card as Markdown.

    Args:
      run: its folder; evaluations of this checkpoint are in it, or there are none.
      metadata: of its checkpoint.
      lrg: of its lung region generator's; None if there is none.
    """
    stage, findings = metadata["stage"], named_in(metadata)
    sections = {
        "Network": _network(metadata, lrg),
        "Findings": f"{', '.join(map(display_name, findings))}, in this order.",
        "Data": _data(metadata),
        "Recipe": _recipe(metadata),
        "Figures": _figures(run, metadata),
        "Limits": _limits(metadata),
        "Use": _use(stage),
    }
    title = {"fusion": "Segmentation-based Deep Fusion Network", "entire": "Entire radiographs", "lung": "Lung regions"}
    of = display_name(findings[0]) if len(findings) == 1 else f"{len(findings)} findings"
    parts = [
        "---\nlibrary_name: sdfn_jax\npipeline_tag: image-classification\ntags:\n- chest-radiograph\n- jax\n---",
        f"# {title[stage]}: {of} on chest radiographs",
        "**For research, not for diagnosis.**",
        *(f"## {name}\n\n{text}" for name, text in sections.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _network(metadata: Mapping[str, Any], lrg: Mapping[str, Any] | None) -> str:
    config = metadata["config"]
    p = Preprocessing.of(config)
    rows = {
        "branches": " and ".join(config["branches"]),
        "backbone of each": f"{run_identity.backbone(config)}, {_listed(config['model'])}",
        "input of each": f"{p.size} x {p.size} pixels, {p.channels} equal channels from {p.low:g} to {p.high:g}, mean "
        f"{_listed(p.mean)}, standard deviation {_listed(p.std)}",
        "test-time flip": "yes" if run_identity.setting(config, "test_time_flip") else "no",
        "checkpoint (SHA-256 of the weights)": metadata["digest"],
    }
    if lrg is not None:
        known = shipped.describe() if lrg["digest"] == shipped.digest() else "a U-Net"
        on = "; trained on synthetic radiographs" if lrg.get("drawings") else ""
        rows["lung region generator"] = f"{known}, {lrg['config']['data']['size']} pixels, {lrg['digest']}{on}"
    return _table(rows)


def _data(metadata: Mapping[str, Any]) -> str:
    training = run_metadata.read(metadata)
    rows = {
        "data set": training.data_version or _UNKNOWN,
        "label version": training.label_version or "unknown",
        "synthetic radiographs": {True: "yes", False: "no", None: "unknown"}[training.drawings],
    }
    if "pretrained" in metadata:
        start = metadata["pretrained"]
        rows["started from"] = f"{start['file']} ({start['source']}), SHA-256 {start['sha256']}"
    for branch, each in training.imported.items():
        rows[f"{branch} branch"] = each.describe()
    return _table(rows)


def _recipe(metadata: Mapping[str, Any]) -> str:
    if run_metadata.is_imported(metadata):
        return f"{_UNKNOWN[0].upper()}{_UNKNOWN[1:]}."
    recipe = run_identity.recipe(metadata["config"])
    return _table({name: _listed(value) for name, value in recipe.items() if name not in _NOT_SHOWN})


def _figures(run: Path, metadata: Mapping[str, Any]) -> str:
    found = [_figure(run, split, metadata["digest"]) for split in ("test", "validation")]
    return "\n\n".join(filter(None, found)) or "None: this checkpoint was not evaluated."


def _figure(run: Path, split: str, digest: str) -> str:
    """Returns the AUCs of an evaluation of this checkpoint; empty if there is none."""
    try:
        evaluation = read_evaluation(evaluation_folder(run, split))
    except OSError:
        return ""
    origin, of_films = evaluation.origin, evaluation.predictions
    if origin.checkpoint != digest:
        return ""
    values = (of_films.labels, of_films.probabilities)
    aucs = scores.class_aucs(*values)
    replicates = bootstrap.auc_replicates(*values, bootstrap.draw(of_films.patients, _REPLICATES, _SEED))
    mean, defined = scores.mean_auc(aucs)
    intervals = [bootstrap.interval(each) for each in (bootstrap.mean_replicates(replicates), *replicates)]
    named = dict(
        zip((f"mean of {defined} findings", *map(display_name, of_films.findings)), (mean, *aucs), strict=True)
    )
    lines = [
        f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} |" if not np.isnan(value) else f"| {name} | undefined | |"
        for (name, value), (low, high) in zip(named.items(), intervals, strict=True)
    ][len(of_films.findings) == 1 :]  # of one finding there is no mean
    labels = "" if origin.label_version is None else f" labels of {origin.label_version},"
    what = (
        f"AUC on {split}: {origin.data_version},{labels} {len(of_films.images):,} films of "
        f"{len(np.unique(of_films.patients)):,} patients, seed {origin.seed}; 95 % intervals from {_REPLICATES:,} "
        "bootstrap samples of patients."
    )
    table = [f"| | AUC on {split} | 95 % interval |", "|---|---|---|", *lines]
    return "\n".join([what, "", *table, "", *caveats(evaluation)])


def _limits(metadata: Mapping[str, Any]) -> str:
    sentences = [
        "Labels that were mined from reports are wrong in places: a probability is that of a label, not of a finding.",
        "Films of another hospital, device, age or projection than the data's give other probabilities. How good they "
        "are is not known without a figure above.",
    ]
    if run_metadata.read(metadata).drawings is not False:
        sentences.insert(0, "Not known to be trained on radiographs of patients: its probabilities may mean nothing.")
    if "lung" in metadata["config"]["branches"]:
        sentences.append("The lung branch reads what the lung region generator finds: a wrong box is a wrong input.")
    return "\n".join(f"* {sentence}" for sentence in sentences)


def _use(stage: str) -> str:
    return (
        "With sdfn_jax:\n\n```\nsdfn predict FILES... --checkpoint=THIS_FILE.zip --output=FOLDER\n```\n\n```python\n"
        'import sdfn_jax\n\nmodel = sdfn_jax.load("THIS_FILE.zip")\nprint(model("film.dcm").probabilities)\n```\n\n'
        f"The weights alone are in `{stage}.safetensors`. The licence is for whoever publishes them to state: that of "
        "the weights that training started from, and the terms of the data, may bind it."
    )


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_listed(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_listed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
