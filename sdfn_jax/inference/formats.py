"""A trained stage in other formats: safetensors, StableHLO, ONNX."""

import dataclasses
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from sdfn_jax.core import checkpoint, ensemble, networks, run_identity, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.extras import install_command
from sdfn_jax.core.files import appears_when_complete, locked
from sdfn_jax.models import sdfn
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.models.weights import torchvision, weights_file
from sdfn_jax.radiographs import findings

EXPORT_TOLERANCE = 1e-4  # largest difference of a probability between an exported network and the checkpoint
_IMAGES = 3  # compared on the spot
_NETWORK, _RECORD = "network.stablehlo", "record.json"


def export(workdir: str | Path, output: str | Path) -> str:
    """Writes a trained stage's best checkpoint in another format.

    Args:
      workdir: of an LRG (`.safetensors` only), an extractor, a fusion network, or an ensemble (not `.safetensors`).
      output: the file; its suffix chooses the format. It appears complete and verified, or not at all.

    Returns:
      the result of the comparison, as a line for the reader.

    Raises:
      UserError: without a trained checkpoint, for another suffix, if the comparison fails, or while another command
        writes the same file.
    """
    members, metadata = networks.read(workdir)
    output = Path(output)
    writers = {".safetensors": _write_safetensors, ".stablehlo": _write_stablehlo, ".onnx": _write_onnx}
    if output.suffix not in writers:
        raise UserError(f"--output={output}: the name must end with one of {', '.join(writers)}")
    if metadata["stage"] == "lrg" and output.suffix != ".safetensors":
        raise UserError(f"{workdir} is a lung region generator: it exports to .safetensors, not to {output.suffix}")
    if len(members) > 1 and output.suffix == ".safetensors":
        raise UserError(
            f"{workdir} is an ensemble, and a .safetensors file holds the weights of one network: export each of its "
            f"runs ({ensemble.RECORD_FILE} lists them), or the ensemble to .stablehlo or .onnx"
        )
    try:
        lock = locked(output.with_name(f".{output.name}.lock"), output)
        with lock, appears_when_complete(output) as unfinished:
            return f"{output}: " + writers[output.suffix](unfinished, members, metadata)
    except ImportError as error:
        raise UserError(f"{output.suffix} needs more packages ({error}): {install_command('export')}") from error


def record_of(metadata: dict) -> dict[str, Any]:
    """Returns how an exported file describes itself.

    Stage, checkpoint, classes, branches, preprocessing, which branches were imported from which weights file, and the
    members of an ensemble.
    """
    config = metadata["config"]
    record = {"stage": metadata["stage"], "checkpoint": metadata["digest"]}
    if metadata["stage"] == "lrg":
        return record | {"normalisation": metadata["normalisation"], "contrast": config["contrast"]}
    preprocessing = Preprocessing.of(config).as_dict()
    imported = {branch: dataclasses.asdict(each) for branch, each in run_metadata.read(metadata).imported.items()}
    record |= {
        "branches": list(config["branches"]),
        "classes": list(findings.named_in(metadata)),
        "preprocessing": preprocessing,
    }
    record["backbone"] = run_identity.backbone(config)
    if run_identity.setting(config, "test_time_flip"):
        record["test_time_flip"] = True
    if networks.MEMBERS in metadata:
        record["members"] = metadata[networks.MEMBERS]
    return record | ({"imported": imported} if imported else {})


def probabilities(members: Sequence[dict], metadata: dict) -> Callable[..., jax.Array]:
    """Returns the whole classifier as a function, always in float32, which every machine has.

    Args:
      members: the variables of an ensemble's networks, or of one.
      metadata: of the checkpoint, or the ensemble.

    Returns:
      (B, S, S) uint8 for each branch of the record, in its order -> (B, K) float32 probabilities.
    """
    config = metadata["config"]
    model = sdfn.from_config({**config, "dtype": "float32"}, len(findings.named_in(metadata)))
    preprocessing = Preprocessing.of(config)

    def classify_on(backend: str) -> Callable[..., jax.Array]:
        network = model.clone(backend=backend)

        def classify(*images: jax.Array) -> jax.Array:
            inputs = {name: preprocessing(image) for name, image in zip(config["branches"], images, strict=True)}
            each = [jax.nn.sigmoid(network.apply(variables, inputs, train=False)[0]) for variables in members]
            return sum(each[1:], each[0]) / len(each)

        return classify

    # A StableHLO file is for other machines than the one that writes it.
    return lambda *images: jax.lax.platform_dependent(*images, cpu=classify_on("cpu"), default=classify_on("gpu"))


def to_tensors(variables: dict, branches: list[str]) -> dict[str, np.ndarray]:
    """Returns a stage's variables under torchvision's names, in its layout.

    Those of a DenseNet extractor are torchvision's own; a fusion network has them once for each branch, after the
    branch's name (`entire.features.conv0.weight`), and one `classifier`. Other networks (the LRG, no branches) keep our
    modules' names.
    """
    tensors = {}
    for variable, array in traverse_util.flatten_dict(variables).items():
        kind, module, *rest = variable
        if module in branches:
            prefix = "" if len(branches) == 1 else f"{module}."
            name = torchvision.torch_name((kind, *rest), f"{prefix}features.")
        elif branches:
            name = torchvision.torch_name((kind, "classifier", *rest), "")
        else:
            name = torchvision.torch_name(variable, "")
        tensors[name] = torchvision.to_torch(np.asarray(array))
    return tensors


def read_variables(path: str | Path) -> tuple[dict, dict]:
    """Reads what was exported as `.safetensors`.

    Returns:
      (variables as the checkpoint has them, the file's record).
    """
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        record = run_identity.under_present_names(json.loads(file.metadata()[weights_file.HEADER]))
    flat = {}
    branches = record.get("branches", [])
    for name, tensor in tensors.items():
        if branches and name.startswith("classifier."):
            name = name.replace("classifier", "head")
        elif branches:
            branch, _, rest = name.rpartition("features.")
            name = f"{branch or branches[0] + '.'}{rest}"
        flat[torchvision.variable_of(name, tensor)] = torchvision.to_ours(tensor)
    return traverse_util.unflatten_dict(flat), record


def read_stablehlo(path: str | Path) -> tuple[Callable[..., jax.Array], dict]:
    """Reads what was exported as `.stablehlo`: a zip archive of `jax.export`'s bytes and the record.

    Returns:
      (function of the images, as `probabilities` returns it; the file's record).
    """
    with zipfile.ZipFile(path) as archive:
        exported = jax.export.deserialize(bytearray(archive.read(_NETWORK)))
        return exported.call, run_identity.under_present_names(json.loads(archive.read(_RECORD)))


def as_safetensors(variables: dict, metadata: dict) -> bytes:
    """Returns a network as the content of a `.safetensors` file, as `read_variables` reads it."""
    record = record_of(metadata)
    branches = record.get("branches", [])
    if len(branches) == 1:  # what --config.pretrained and `weights.read` take
        record |= {"source": f"sdfn_jax, stage {record['stage']}", "sha256": record["checkpoint"]}
        record["file"] = f"checkpoint {record['checkpoint'][:12]}"
    tensors = to_tensors(variables, branches)
    return to_bytes(tensors, {"format": "pt", weights_file.HEADER: json.dumps(record)})


def _write_safetensors(path: Path, members: Sequence[dict], metadata: dict) -> str:
    (variables,) = members
    path.write_bytes(as_safetensors(variables, metadata))
    again, _ = read_variables(path)
    if checkpoint.tree_digest(again) != metadata["digest"]:
        raise UserError("the weights read back are not those of the checkpoint; nothing was written")
    count = len(jax.tree.leaves(again))
    return f"{count} tensors, bit for bit those of the checkpoint {metadata['digest'][:12]}"


def _write_stablehlo(path: Path, members: Sequence[dict], metadata: dict) -> str:
    classify = probabilities(members, metadata)
    (count,) = jax.export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((count, *image.shape[1:]), image.dtype) for image in _sample(metadata)]
    exported = jax.export.export(jax.jit(classify), platforms=("cpu", "cuda", "tpu"))(*shapes)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_NETWORK, bytes(exported.serialize()))
        archive.writestr(_RECORD, json.dumps(record_of(metadata), indent=2))
    call, _ = read_stablehlo(path)
    return _compare(lambda *images: np.asarray(call(*images)), classify, metadata)


def _write_onnx(path: Path, members: Sequence[dict], metadata: dict) -> str:
    import onnxruntime  # here, as onnx_graph's onnx: packages of the extra

    from sdfn_jax.inference import onnx_graph

    record = record_of(metadata)
    tensors = [to_tensors(variables, record["branches"]) for variables in members]
    content = onnx_graph.build(tensors, record, metadata["config"]["model"])
    path.write_bytes(content)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return _compare(
        lambda *images: session.run(None, dict(zip(record["branches"], images, strict=True)))[0],
        probabilities(members, metadata),
        metadata,
    )


def _sample(metadata: dict) -> list[np.ndarray]:
    """Returns random images for each branch: smooth ones, as a network cannot distinguish noise."""
    size = metadata["config"]["data"]["size"]
    generator = np.random.default_rng(0)
    coarse = generator.uniform(0, 255, (len(metadata["config"]["branches"]), _IMAGES, 8, 8)).astype(np.float32)
    images = jax.image.resize(jnp.asarray(coarse), (*coarse.shape[:2], size, size), "linear")
    return list(np.asarray(images).astype(np.uint8))


def _compare(exported: Callable, original: Callable, metadata: dict) -> str:
    images = _sample(metadata)
    ours, theirs = np.asarray(jax.jit(original)(*images)), exported(*images)
    difference = float(np.abs(ours - theirs).max())
    if ours.shape != theirs.shape or not difference <= EXPORT_TOLERANCE:
        raise UserError(
            f"the exported network's probabilities differ from the checkpoint's (by {difference:.2g}, allowed "
            f"{EXPORT_TOLERANCE:g}); nothing was written"
        )
    return (
        f"probabilities of {len(ours)} random images within {difference:.1e} of the checkpoint "
        f"{metadata['digest'][:12]}"
    )
