"""Reads the variables of a backbone, all or none, from any known weights file; and writes our own compact file."""

import codecs
import collections
import dataclasses
import json
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import appears_when_complete, file_digest
from sdfn_jax.models import backbones
from sdfn_jax.models.initial import traced_shapes
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.models.weights import averages, bounds, download, hub, keras, torch_pickle, torchvision
from sdfn_jax.radiographs.findings import FINDINGS

# The record in the header of our own files: keys and types.
_RECORD = {"source": str, "file": str, "sha256": str, "classes": (list, type(None)), "preprocessing": dict}
IMAGENET = "imagenet"  # in place of a file: what the backbone's line in `backbones` names, downloaded once
NO_CLASS = "-"  # in a class list: an output that was never trained
HEADER = "sdfn_jax"  # key of our record in a converted file's header
_SHOWN = 3  # tensors named for each kind of fault
_SAFETENSORS_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}
_COUNTER = ".num_batches_tracked"  # used only with torch's momentum=None
# {beginning of files that people mistake for weights: what it is, and what to do}.
_NOT_WEIGHTS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: fetch it with git lfs pull",
    b"\x1f\x8b": "a file packed with gzip: unpack it first",
    b"BZh": "a file packed with bzip2: unpack it first",
    b"\xfd7zXZ": "a file packed with xz: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A backbone's weights and everything needed to use them.

    Attributes:
      variables: `{"params": ..., "batch_stats": ...}`, nested dicts of float32 NumPy arrays: one branch of an `SDFN`.
      head: `{"kernel": (C, outputs), "bias": (outputs,)}` of the classifier, or None if the file has none.
      classes: names of the outputs, `NO_CLASS` for one without meaning; None if unknown.
      preprocessing: of the images that the weights expect.
      source: the program that wrote the file, recognised from its content, and which of several sets this is.
      file: its name, or its address on the hub with the commit.
      sha256: of the file that was converted, in hexadecimal.
    """

    variables: dict[str, Any]
    head: dict[str, np.ndarray] | None
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing
    source: str
    file: str
    sha256: str

    def describe(self) -> str:
        """Returns a line for the reader: source, size, classifier, input, SHA-256."""
        count = sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))
        outputs = "no classifier" if self.head is None else f"a classifier of {self.head['bias'].size} outputs"
        p = self.preprocessing
        numbers = [", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std)]
        return (
            f"{self.file}: {self.source}; {count:,} parameters and {outputs}; input {p.size} x {p.size}, "
            f"{p.channels} channel{'s' * (p.channels > 1)} from {p.low:g} to {p.high:g}, mean {numbers[0]}, std "
            f"{numbers[1]}; SHA-256 {self.sha256}"
        )

    def findings_head(self, findings: Sequence[str] = FINDINGS) -> dict[str, np.ndarray]:
        """Returns the classifier with the outputs of K findings, in their order.

        Returns:
          {"kernel": (C, K), "bias": (K,)}: `params/head` of an `SDFN` with this one branch.

        Raises:
          UserError: without a classifier or class list, or if a finding is not among the classes.
        """
        if self.head is None or self.classes is None:
            lacks = (
                "has no classifier" if self.head is None else "does not say what its outputs are: give its class list"
            )
            raise UserError(f"{self.file} {lacks} (--classes=...)")
        if missing := [name for name in findings if name not in self.classes]:
            raise UserError(
                f"{self.file}: the class list lacks {', '.join(missing)}; it has {', '.join(self.classes)} "
                "(--classes=...). --config.findings=... names the findings of the run"
            )
        order = [self.classes.index(name) for name in findings]
        return {"kernel": self.head["kernel"][:, order], "bias": self.head["bias"][order]}


def load_weights(source: str | Path, model: nn.Module | None = None, classes: Sequence[str] | None = None) -> Weights:
    """Reads a backbone's weights.

    Args:
      source: `imagenet` (for DenseNet-121 what torchvision publishes, downloaded once), an address on the Hugging Face
        hub (`hf://owner/name/file[@revision]`), or a file of torchvision, timm, a CheXNet reproduction, TorchXRayVision
        or Keras, or one that this project wrote.
      model: the network that the weights must fill; DenseNet-121 if None.
      classes: names of the classifier's outputs, in the file's order, if it has a classifier and does not name them.

    Returns:
      variables, classifier, and the preprocessing that the weights expect.

    Raises:
      UserError: naming the file and what is wrong with it, or if the download fails; a ValueError.
    """
    if model is None:
        model = backbones.build(backbones.PAPERS, {})
    there = remote(source, backbones.of(model))
    return read(source if there is None else there.fetch(), model, classes)


def remote(source: str | Path, backbone: backbones.Backbone) -> download.Published | hub.HubFile | None:
    """Returns what `imagenet` or an address on the hub stands for; None for a file.

    Raises:
      UserError: if there are no ImageNet weights for the backbone, or the address is none.
    """
    if source == IMAGENET:
        return backbone.published()
    return hub.parse(source) if isinstance(source, str) and source.startswith(hub.HUB_SCHEME) else None


def read(path: str | Path, model: nn.Module, classes: Sequence[str] | None = None) -> Weights:
    """Reads a weights file of any source, whole or not at all.

    Every tensor of the file is used once (except torch's batch counters), and every variable is filled once.

    Args:
      path: of torchvision, timm, a CheXNet reproduction, TorchXRayVision, Keras, or one that `save` wrote.
      model: the backbone's network that the weights must fill.
      classes: names of the classifier's outputs, in the file's order; `NO_CLASS` for one without meaning. None for
        those that a converted file names.

    Raises:
      UserError: naming the file, if it cannot be read or recognised, or with the tensors that are missing, not
        expected, of another shape, not exact in float32, or not finite; or if the class list does not fit.
    """
    path = Path(path)
    try:
        bounds.check_file(path)
        tensors, record, average = _open(path)
        tensors = {name: _as_float32(tensor) for name, tensor in tensors.items()}
        source, named, preprocessing = _recognise(tensors, record, model)
        variables, head = _fill(named, model, preprocessing.channels)
        if classes is None:
            classes = record.get("classes")
        if classes is not None:
            classes = _check_classes(classes, head)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: {_printable(str(error))}") from error
    return Weights(
        variables=variables,
        head=head,
        classes=classes,
        preprocessing=preprocessing,
        source=source + (f", moving average {average}" if average else ""),
        file=record.get("file", hub.pinned(path) or path.name),
        sha256=record["sha256"] if record else file_digest(path),
    )


def save(path: str | Path, weights: Weights) -> None:
    """Writes weights as one `.safetensors` file with torchvision's names, and everything needed to use them.

    Reading it gives the same `Weights`; torchvision's and timm's networks load it as it is.

    Args:
      path: of the file; it appears complete or not at all.
      weights: what to write.
    """
    tensors = branch_tensors(weights.variables)
    if weights.head is not None:
        tensors |= dict(zip(torchvision.HEAD, map(torchvision.to_torch, weights.head.values()), strict=True))
    record = {
        "source": weights.source,
        "file": weights.file,
        "sha256": weights.sha256,
        "classes": weights.classes,
        "preprocessing": weights.preprocessing.as_dict(),
    }
    with appears_when_complete(path) as unfinished:
        unfinished.write_bytes(to_bytes(tensors, {"format": "pt", HEADER: json.dumps(record)}))


def branch_tensors(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a backbone's variables under torchvision's names, in its layout."""
    return {
        torchvision.torch_name(variable): torchvision.to_torch(np.asarray(array))
        for variable, array in traverse_util.flatten_dict(variables).items()
    }


def parse_classes(text: str) -> list[str]:
    """Returns a class list given as names separated by commas, or as a file with a name on each line.

    Raises:
      UserError: for a file that cannot be read.
    """
    if "," in text:
        return [name.strip() for name in text.split(",")]
    try:
        content = Path(text).read_bytes()
        # Windows saves text with a byte order mark, or in UTF-16, which always has one.
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        names = content.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{text}: a class list is names separated by commas, or a text file ({error})") from error
    return [name.strip() for name in re.split(r"[\n,]", names) if name.strip()]


def _open(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Opens a file, recognised by content, not name.

    Returns:
      {name: array}; our record, empty in other files; and which moving average of several sets of weights this is, or
      empty.
    """
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"\x89HDF\r\n\x1a\n") or (start.startswith(b"PK") and _is_keras(path)):
        return keras.read(path), {}, ""
    if start.startswith((b"PK", b"\x80")):
        tensors, average = torch_pickle.read_set(path)
        return tensors, {}, average
    if start.lstrip()[:1] == b"<":
        raise ValueError("a web page, not weights: open the address in a browser, it may ask for a sign-in or a click")
    if start[8:9] != b"{":
        unknown = "neither a .safetensors nor a PyTorch nor a Keras file, or damaged: download it again"
        found = (name for beginning, name in _NOT_WEIGHTS.items() if start.startswith(beginning))
        raise ValueError(next(found, unknown) if start else "an empty file: download it again")
    tensors, record = _open_safetensors(path, int.from_bytes(start[:8], "little"))
    tensors, average = _of_average(tensors)
    return tensors, record, average


def _open_safetensors(path: Path, header: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    bounds.check(header, bounds.LARGEST_HEADER, "its header")
    try:
        with safe_open(path, framework="numpy") as file:
            record = _parse_record((file.metadata() or {}).get(HEADER))
            names = list(file.keys())
            bounds.check(len(names), bounds.MOST_TENSORS, "the file", "tensors")
            for name in names:
                if (dtype := file.get_slice(name).get_dtype()) not in _SAFETENSORS_DTYPES:
                    raise ValueError(f"the tensor {name} has numbers of an unsupported type: {dtype}")
            return {name: file.get_tensor(name) for name in names}, record
    except SafetensorError as error:
        raise ValueError(f"not a whole .safetensors file ({error}), perhaps truncated: download it again") from error


def _of_average(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Returns the tensors of the moving average, if a flat file has one next to what was trained, and its name."""
    average = averages.chosen({name.partition(".")[0] for name in tensors})
    if average is None:
        return tensors, ""
    own = {
        name.removeprefix(f"{average}."): tensor for name, tensor in tensors.items() if name.startswith(f"{average}.")
    }
    return own, average if len(own) < len(tensors) else ""


def _parse_record(text: str | None) -> dict[str, Any]:
    """Returns our record in a file's header; empty in other files."""
    if text is None:
        return {}
    try:
        record = json.loads(text)
        if not isinstance(record, dict) or not record:
            raise ValueError(f"it is {type(record).__name__}")
        if "stage" in record and not record.keys() >= _RECORD.keys():
            return record  # an exported network of several branches
        for name, kind in _RECORD.items():
            if not isinstance(record.get(name), kind):
                raise ValueError(f"{name} is missing or of the wrong type")
        if type(Preprocessing(**record["preprocessing"]).size) is not int:
            raise ValueError("the size of its images is not a number")
        if any(not isinstance(name, str) for name in record["classes"] or ()):
            raise ValueError("classes are not names")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"its header has a record ({HEADER}) that this program did not write ({error}): convert or export again"
        ) from error
    return record


def _is_keras(path: Path) -> bool:
    try:
        with path.open("rb") as file, bounds.open_zip(file) as archive:
            return keras.WEIGHTS_ENTRY in archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error) as error:
        raise ValueError("a truncated or damaged zip archive: download it again") from error


def _as_float32(tensor: np.ndarray) -> np.ndarray:
    """Returns floating-point numbers of any width as float32 if that is exact; others unchanged."""
    if tensor.dtype == np.float32 or not jnp.issubdtype(tensor.dtype, jnp.floating):
        return tensor
    with np.errstate(over="ignore"):
        single = tensor.astype(np.float32)
    return single if np.array_equal(single.astype(tensor.dtype), tensor, equal_nan=True) else tensor


def _printable(text: str) -> str:
    """Returns a message in which names from a file cannot control or flood a terminal."""
    lines = [line if len(line) <= 1_000 else line[:1_000] + " ..." for line in text.split("\n")]
    return "\n".join("".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in line) for line in lines)


def _recognise(
    tensors: Mapping[str, np.ndarray], record: Mapping[str, Any], model: nn.Module
) -> tuple[str, dict[str, np.ndarray], Preprocessing]:
    """Returns the source's name, the tensors under torchvision's names, and the source's preprocessing."""
    if record:
        if not record.keys() >= _RECORD.keys():
            raise ValueError(f"an exported network of the stage {record.get('stage')}, not the weights of one branch")
        return record["source"], dict(tensors), Preprocessing(**record["preprocessing"])
    sources = backbones.of(model).load_sources()
    for source in sources:
        if source.recognises(tensors):
            return source.NAME, source.to_torchvision(tensors), source.PREPROCESSING
    shown = ", ".join(list(tensors)[:4])
    raise ValueError(
        f"not weights for {model.title} from a known source "
        f"({', '.join(source.NAME for source in sources) or 'there is none'}): it holds {len(tensors)} tensors, the "
        f"first of them {shown or 'none'}"
    )


def _fill(
    tensors: Mapping[str, np.ndarray], model: nn.Module, channels: int
) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    """Returns the backbone's variables and its classifier; a ValueError lists every tensor at fault."""
    image = jax.ShapeDtypeStruct((1, model.smallest_side, model.smallest_side, channels), jnp.float32)
    maps, shapes = traced_shapes(model, image, train=False)
    expected = {torchvision.torch_name(path): (path, shape) for path, shape in shapes.items()}
    kernel, bias = torchvision.HEAD
    if kernel in tensors or bias in tensors:
        outputs = next(tensors[name].shape[:1] for name in torchvision.HEAD if name in tensors)
        expected |= {kernel: (("head", "kernel"), (maps.shape[-1], *outputs)), bias: (("head", "bias"), outputs)}
    norms = [name.removesuffix(".running_var") for name in expected if name.endswith(".running_var")]
    counters = {norm + _COUNTER for norm in norms}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in counters}

    faults = [f"missing: {name}" for name in expected.keys() - tensors.keys()]
    faults += [f"not expected: {name}" for name in tensors.keys() - expected.keys()]
    variables = {}
    for name in expected.keys() & tensors.keys():
        path, shape = expected[name]
        tensor = tensors[name]
        variables[path] = torchvision.to_ours(tensor)
        if variables[path].shape != shape:
            wanted = torchvision.to_torch(np.empty(shape)).shape
            faults.append(f"shape: {name} is {tensor.shape}, expected {wanted}")
        elif tensor.dtype != np.float32:
            faults.append(f"dtype: {name} is {tensor.dtype}, with numbers that float32 does not hold exactly")
        elif not np.isfinite(tensor).all():
            faults.append(f"not finite: {name}")
        elif name.endswith("running_var") and tensor.min() < 0:
            faults.append(f"negative variance: {name}")
    if faults:
        count = "1 tensor is" if len(faults) == 1 else f"{len(faults):,} tensors are"
        raise ValueError(
            f"not the weights of {model.title}{_what_it_is(tensors, model)}; {count} at fault:\n  "
            + "\n  ".join(_shortened(faults))
        )
    head = {leaf: variables.pop(("head", leaf)) for leaf in ("kernel", "bias")} if kernel in tensors else None
    return traverse_util.unflatten_dict(variables), head


def _shortened(faults: Iterable[str]) -> list[str]:
    """Returns the first few faults of each kind, and how many more there are."""
    kinds = collections.defaultdict(list)
    for fault in sorted(faults):
        kinds[fault.partition(":")[0]].append(fault)
    lines = []
    for kind, same in kinds.items():
        lines += same[:_SHOWN]
        if len(same) > _SHOWN:
            lines.append(f"{kind}: {len(same) - _SHOWN:,} more")
    return lines


def _what_it_is(names: Iterable[str], model: nn.Module) -> str:
    """Names the DenseNet that the names belong to, if it is not the expected one."""
    found = torchvision.block_sizes(names)
    if not found or found == tuple(getattr(model, "block_sizes", ())):
        return ""
    return f" but of {backbones.build('densenet', {'block_sizes': found}).title}"


def _check_classes(classes: Sequence[str], head: dict[str, np.ndarray] | None) -> tuple[str, ...]:
    """Returns a class list with the findings spelled our way."""
    if head is None:
        raise ValueError(f"a class list of {len(classes)} names, but the file has no classifier")
    outputs = head["bias"].size
    if len(classes) != outputs:
        raise ValueError(f"the class list has {len(classes)} names, the classifier {outputs} outputs")
    ours = {_plain(name): name for name in FINDINGS}
    names = tuple(ours.get(_plain(name), name) or NO_CLASS for name in classes)
    if twice := sorted({name for name in names if name != NO_CLASS and names.count(name) > 1}):
        raise ValueError(f"the class list names {', '.join(twice)} more than once")
    return names


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "")
