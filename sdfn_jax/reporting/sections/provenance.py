"""Sections on where the numbers come from: what was measured, and the model card."""

import json

from sdfn_jax.core import run_metadata
from sdfn_jax.metrics import published
from sdfn_jax.metrics.evaluation import RECIPE_FILE
from sdfn_jax.metrics.predictions import image_list_digest
from sdfn_jax.reporting import verdict
from sdfn_jax.reporting.comparable import all_caveats, seed_texts
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Section, Table

_RECIPE = (
    *("num_epochs", "batch_size", "learning_rate", "learning_rate_decay", "plateau", "flip", "frozen", "pretrained"),
    *("backbone", "model", "preprocessing", "loss", "optimizer", "weight_decay", "learning_rate_rule", "warmup_share"),
    *("ema_decay", "augmentation", "test_time_flip", "dtype"),
)


def measured(material: Material) -> Section:
    """Origin and caveats of every number below."""
    notes = [f"NOTE: {sentence}" for sentence in all_caveats([run.test for run in material.runs])]
    absent = material.official.absent if material.official is not None else None
    if absent:
        notes.append(
            f"NOTE: {len(absent):,} images of the official test list were not evaluated, such as "
            f"{', '.join(absent[:3])}."
        )
    origin, count = material.runs[0].test.origin, len(material.labels)
    if material.table.has_papers and not origin.drawings and not verdict.is_papers_test(material):
        notes.append(
            f"NOTE: {count:,} images under labels {origin.label_version}, not the paper's {published.TEST_IMAGES:,} "
            "under 2017: the paper's figures are next to ours for orientation, not for comparison."
        )
    for run in material.runs:
        imported = {} if run.recipe is None else run_metadata.read(run.recipe).imported
        notes += [
            f"NOTE: {run.name}: its {branch} branch's weights were {each.describe()}."
            for branch, each in imported.items()
        ]
    rows: list[list[Cell]] = []
    for run in material.runs:
        origin, predictions = run.test.origin, run.test.predictions
        rows.append(
            [
                run.name,
                len(predictions.images),
                len(set(predictions.patients.tolist())),
                "synthetic radiographs" if origin.drawings else "radiographs",
                origin.data_version,
                origin.split,
                origin.label_version or "one version",
                "/".join(seed_texts(origin)),
                origin.checkpoint[:12],
            ]
        )
    heads = ["Network", "images", "patients", "of", "data", "split", "labels", "seed", "checkpoint"]
    return Section(
        "measured",
        "What was measured",
        notes,
        [Table("measured", "Every figure below is of these evaluations", heads, rows)],
    )


def model_card(material: Material) -> Section:
    """What a reader must know of the networks."""
    first = material.runs[0].test
    rows: list[list[str]] = [
        ["Intended use", "Research on thoracic findings in frontal chest radiographs. Not a medical device."],
        ["Data", f"{first.origin.data_version}, {'synthetic radiographs' if first.origin.drawings else 'radiographs'}"],
        ["Findings", ", ".join(material.finding_names)],
        ["Label version", first.origin.label_version or "one version"],
        ["Split", f"{first.origin.split}, {len(first.predictions.images):,} images"],
        ["SHA-256 of the image list", image_list_digest(first.predictions.images)],
    ]
    for run in material.runs:
        name = run.name
        rows += [
            [f"{name}: checkpoint", run.test.origin.checkpoint],
            [f"{name}: seed", "/".join(seed_texts(run.test.origin))],
            [f"{name}: recipe", _recipe(run.recipe)],
        ]
    is_nih = first.origin.data_version.startswith("chestxray14/")
    if is_nih and not first.origin.drawings:
        rows.append(
            [
                "Labels",
                "Mined from reports by text analysis, without anyone reading the images; their errors are in every "
                "figure.",
            ]
        )
    rows.append(
        [
            "Limits",
            f"{'One hospital; f' if is_nih else 'F'}rontal films; AP films are of sicker patients, and a network may "
            "read the view instead of the finding (see within-view AUC). Predictive values change with prevalence. "
            "Heatmaps show where a logit comes from, not where disease is: see the floors next to the localization.",
        ]
    )
    if first.origin.drawings:
        rows.append(["Provider of the images", "none: synthetic radiographs, drawn by sdfn_jax"])
    elif is_nih:
        rows.append(["Provider of the images", "NIH Clinical Center (Wang et al., CVPR 2017)"])
    rows.append(["Evaluation", f"{material.replicates:,} resamples of patients"])
    return Section("model-card", "Model card", [], [Table("model_card", "Model card", ["Item", "value"], rows)])


def _recipe(recipe: dict | None) -> str:
    if recipe is None:
        return f"unknown: the evaluation left no {RECIPE_FILE}; evaluate again"
    if run_metadata.is_imported(recipe):
        (imported,) = run_metadata.read(recipe).imported.values()
        return f"unknown: trained elsewhere, {imported.describe()}"
    config = recipe["config"]
    return "; ".join(f"{name} {json.dumps(config[name])}" for name in _RECIPE if name in config)
