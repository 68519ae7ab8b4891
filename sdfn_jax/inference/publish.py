"""Writes a trained classifier as one file, with its model card (`one_file`)."""

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sdfn_jax.core import checkpoint, ensemble, files
from sdfn_jax.core.errors import UserError
from sdfn_jax.inference import formats, model_card, one_file
from sdfn_jax.inference.trained_run import lrg_folder
from sdfn_jax.metrics import calibration


def publish(run: str | Path, output: str | Path) -> str:
    """Writes a run's network, its lung region generator, calibration and card as one file.

    Args:
      run: folder of an extractor or a fusion network.
      output: the file; it appears complete and read back, or not at all.

    Returns:
      what it holds, as a line for the reader.

    Raises:
      UserError: without a trained checkpoint, for a lung region generator or an ensemble, or without the generator that
        the network needs.
    """
    run, output = Path(run), Path(output)
    if ensemble.read(run) is not None:
        raise UserError(
            f"{run} is an ensemble, and a {one_file.ENDING} file holds one network: export each of its runs "
            f"({ensemble.RECORD_FILE} lists them), or the ensemble to .stablehlo or .onnx"
        )
    networks = {"": checkpoint.read_best(run)}
    metadata = networks[""][1]
    if metadata["stage"] == "lrg":
        raise UserError(f"{run} is a lung region generator: it exports to .safetensors, not to {one_file.ENDING}")
    lrg = lrg_folder(run, metadata["config"])
    networks = {metadata["stage"]: networks.pop("")} | (
        {} if lrg is None else {one_file.LRG: checkpoint.read_best(lrg)}
    )
    contents = {
        one_file.CARD: model_card.card(run, metadata, None if lrg is None else networks[one_file.LRG][1]).encode()
    }
    for name, (variables, of_network) in networks.items():
        contents[f"{name}.safetensors"] = formats.as_safetensors(variables, of_network)
        contents[f"{name}.json"] = json.dumps(_without_folders(of_network), indent=2).encode()
    record, _ = calibration.of_checkpoint(run, metadata["digest"])
    if record is not None:
        with tempfile.TemporaryDirectory() as folder:
            calibration.write(folder, record)
            contents[calibration.CALIBRATION_FILE] = (Path(folder) / calibration.CALIBRATION_FILE).read_bytes()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    lock = files.locked(output.with_name(f".{output.name}.lock"), output)
    with lock, files.appears_when_complete(output) as unfinished:
        with zipfile.ZipFile(unfinished, "w") as archive:
            for name, content in {one_file.DIGESTS: json.dumps(digests, indent=2).encode(), **contents}.items():
                archive.writestr(name, content)
        with one_file.unpacked(unfinished) as again:
            if checkpoint.best_metadata(again)["digest"] != metadata["digest"]:
                raise UserError("the network read back is not the checkpoint's; nothing was written")
    return f"{output}: {', '.join(contents)}; bit for bit the checkpoint {metadata['digest'][:12]}"


def _without_folders(value: Any) -> Any:
    """Returns JSON values with absolute paths cut to their last part: they name the machine and its user."""
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(value).name
    return value
