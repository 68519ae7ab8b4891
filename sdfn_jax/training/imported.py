"""A classifier fine-tuned elsewhere as a run of this project: from none of the data to an extractor that predicts."""

from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, processes, run_identity, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.models.initial import variable_shapes
from sdfn_jax.models.preprocessing import check_same_preprocessing
from sdfn_jax.models.weights.weights_file import Weights
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.training import tasks
from sdfn_jax.training.labelling import Labelling


def write_run(config: ConfigDict, weights: Weights) -> None:
    """Writes weights with their classifier as the best checkpoint of an extractor.

    Args:
      config: of `configs/classifier.py`; its workdir must hold no run. Its findings are those of the run; the 14 if it
        names none.
      weights: with a class list that has all of them.

    Raises:
      UserError: for a fusion network, an old workdir, weights without a usable classifier, or weights that expect
        other images than this config prepares; or while another command writes into the workdir.
    """
    if config.stage not in ("entire", "lung"):
        raise UserError(f"weights of one backbone make an extractor, not the stage {config.stage}")
    _check_is_new(config.workdir)
    check_same_preprocessing(weights.preprocessing, config, weights.file, any_size=False)
    findings = tuple(run_identity.setting(config, "findings")) or FINDINGS
    head = weights.findings_head(findings)
    (branch,) = config.branches
    variables = {kind: {branch: tree} for kind, tree in weights.variables.items()}
    variables["params"]["head"] = head
    task = tasks.classification(config, Labelling(findings))
    found = {tuple(name.split("/")): leaf.shape for name, leaf in checkpoint.flatten(variables).items()}
    if found != variable_shapes(task.model, task.inputs, train=False):
        raise UserError(f"{weights.file}: not the network of --config.model")
    metadata = run_metadata.make(
        config,
        {"pretrained": weights.sha256},
        data_version=None,
        drawings=None,
        findings=list(findings),
        **run_metadata.of_import(run_metadata.Imported(weights.file, weights.sha256, weights.source)),
    )
    with processes.writing_alone(config.workdir):
        _check_is_new(config.workdir)  # nor has another command written one since
        checkpoint.save_best(config.workdir, 0, variables, metadata)


def _check_is_new(workdir: str) -> None:
    if any(read(workdir) is not None for read in (checkpoint.best_metadata, checkpoint.latest_metadata)):
        raise UserError(f"{workdir} holds a run already: give a new folder, --config.workdir=FOLDER")
