"""A trained classifier as one file, for people to publish: what is in it, and how it is read.

A zip archive, so that any program can look into it:

    MODEL_CARD.md                      for people
    fusion.safetensors, fusion.json    the network, as `formats` exports it, and its checkpoint's metadata
    lrg.safetensors, lrg.json          the same of its lung region generator, if it has one
    calibration.json                   if it was calibrated
    sha256.json                        the digest of each of these

Nothing in it is executed. It is unpacked into run folders, which everything reads: the same networks, bit for bit.
"""

import contextlib
import hashlib
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from sdfn_jax.core import checkpoint
from sdfn_jax.core.errors import UserError
from sdfn_jax.inference import formats
from sdfn_jax.metrics import calibration
from sdfn_jax.models.weights import bounds

ENDING = ".zip"
CARD, DIGESTS = "MODEL_CARD.md", "sha256.json"
LRG = "lrg"
_STAGES = ("fusion", "entire", "lung")
_KNOWN = {
    CARD,
    calibration.CALIBRATION_FILE,
    *(f"{name}{end}" for name in (*_STAGES, LRG) for end in (".json", ".safetensors")),
}


@contextlib.contextmanager
def unpacked(file: str | Path) -> Iterator[Path]:
    """Yields the run folder of the classifier in a file, its lung region generator next to it, until the block ends.

    Raises:
      UserError: naming the file, if it is none of ours, or not what was written.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = _unpack(_contents(Path(file)), Path(folder))
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
        except (
            ValueError,
            KeyError,
            zipfile.BadZipFile,
            NotImplementedError,
            struct.error,
            zlib.error,
            SafetensorError,
        ) as error:
            raise UserError(
                f"{file}: not a whole file of `sdfn export --output=NAME{ENDING}` ({error}): download or copy it again"
            ) from error
        yield run


def _contents(file: Path) -> dict[str, bytes]:
    """Returns {name: bytes} of the files in the archive, each with the digest that was written."""
    bounds.check_file(file)
    with file.open("rb") as opened, bounds.open_zip(opened) as archive:
        names = archive.namelist()
        digests = json.loads(bounds.read_entry(archive, DIGESTS, bounds.LARGEST_HEADER))
        if not isinstance(digests, dict) or sorted(names) != sorted({*digests, DIGESTS}) or not {*digests} <= _KNOWN:
            raise ValueError(f"it holds other files than {DIGESTS} lists")
        contents = {name: bounds.read_entry(archive, name, bounds.LARGEST_FILE) for name in digests}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != digests[name]:
            raise ValueError(f"{name} has changed: its SHA-256 is not the one that was written")
    return contents


def _unpack(contents: dict[str, bytes], folder: Path) -> Path:
    (stage,) = [name for name in _STAGES if f"{name}.json" in contents]
    config = _save(stage, contents, folder, stage)["config"]
    if f"{LRG}.json" in contents:
        _save(LRG, contents, folder, lrg_folder_name(config))
    if calibration.CALIBRATION_FILE in contents:
        (folder / stage / calibration.CALIBRATION_FILE).write_bytes(contents[calibration.CALIBRATION_FILE])
    return folder / stage


def _save(name: str, contents: dict[str, bytes], folder: Path, run: str) -> dict:
    """Writes a network as the best checkpoint of a run folder; returns its metadata."""
    metadata = json.loads(contents[f"{name}.json"])
    tensors = folder / f"{name}.safetensors"
    tensors.write_bytes(contents[tensors.name])
    variables, _ = formats.read_variables(tensors)
    if checkpoint.tree_digest(variables) != metadata["digest"]:
        raise ValueError(f"{tensors.name} is not the network of {name}.json")
    checkpoint.save_best(folder / run, metadata["step"], variables, metadata)
    tensors.unlink()
    return metadata


def lrg_folder_name(config: dict) -> str:
    """Returns the name of the folder next to a classifier's in which its lung region generator is looked for."""
    return Path(config["lrg"]["workdir"]).name if "lrg" in config else LRG
