"""An SDFN as an ONNX graph, built layer by layer from its tensors, of plain operators that every runtime can fuse.

(jax2onnx 0.17 was tried: it needs an older Orbax than we do, and replaces Flax functions with its own.)
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sdfn_jax.core.errors import UserError
from sdfn_jax.models import convnext
from sdfn_jax.models.preprocessing import Preprocessing

OUTPUT = "probabilities"
# Operators of 2022 (opset 17): what onnxruntime 1.13 and newer, and converters for phones, read.
_OPSET, _IR_VERSION = 17, 8
_EPSILON = 1e-5


def build(members: Sequence[Mapping[str, np.ndarray]], record: Mapping[str, Any], shape: Mapping[str, Any]) -> bytes:
    """Returns the graph's bytes.

    Args:
      members: the tensors of an ensemble's networks, or of one, under torchvision's names, as `formats.to_tensors`
        gives them. In the graph, an ensemble's have `member_<n>.` before them.
      record: `backbone`, `branches`, `preprocessing`, `classes`, `test_time_flip` if it is on, and whatever else goes
        into the file's metadata.
      shape: of the backbone, `config.model`.

    Returns:
      A model with one input for each branch, (batch, S, S) uint8, and one output, (batch, classes) float32.

    Raises:
      UserError: for a backbone without a graph here.
    """
    if record["backbone"] not in GRAPHS:
        raise UserError(
            f"the backbone {record['backbone']} is not exported to .onnx ({', '.join(GRAPHS)} are): .safetensors and "
            ".stablehlo take every backbone"
        )
    backbone = GRAPHS[record["backbone"]]
    preprocessing = Preprocessing(**record["preprocessing"])
    places = [f"member_{number}." for number in range(len(members))] if len(members) > 1 else [""]
    graph = _Graph({place + name: each[name] for place, each in zip(places, members, strict=True) for name in each})
    variants = {}
    for branch in record["branches"]:
        image = _prepare(graph, branch, preprocessing)
        variants[branch] = [image, _mirror(graph, image)] if record.get("test_time_flip") else [image]
    outputs = []
    for place in places:
        pools = []
        for branch, images in variants.items():
            prefix = place if len(variants) == 1 else f"{place}{branch}."
            maps = [backbone(graph, each, f"{prefix}features.", shape) for each in images]
            pools.append(_mean(graph, [graph.add("Flatten", graph.add("GlobalAveragePool", each)) for each in maps]))
        head = [graph.weight(f"{place}classifier.{leaf}") for leaf in ("weight", "bias")]
        logits = graph.add("Gemm", graph.add("Concat", *pools, axis=1), *head, transB=1)
        outputs.append(graph.add("Sigmoid", logits))
    graph.nodes.append(helper.make_node("Identity", [_mean(graph, outputs)], [OUTPUT]))

    side = preprocessing.size
    inputs = [
        helper.make_tensor_value_info(branch, TensorProto.UINT8, ["batch", side, side]) for branch in record["branches"]
    ]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(record["classes"])])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "sdfn", inputs, [output], list(graph.weights.values())),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="sdfn_jax",
    )
    helper.set_model_props(
        model, {key: value if isinstance(value, str) else json.dumps(value) for key, value in record.items()}
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Graph:
    """Nodes in order, and the constants they read."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self.tensors = tensors
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, TensorProto] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node; returns the name of its output."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.tensors[name])

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name


def _prepare(graph: _Graph, branch: str, preprocessing: Preprocessing) -> str:
    """Grey levels (B, S, S) to (B, channels, S, S)."""
    mean, std = (np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    factor = (preprocessing.high - preprocessing.low) / 255 / std
    offset = (preprocessing.low - mean) / std
    axis = graph.constant("channel_axis", np.array([1]))
    x = graph.add("Unsqueeze", graph.add("Cast", branch, to=TensorProto.FLOAT), axis)
    x = graph.add("Mul", x, graph.constant("factor", factor.astype(np.float32)))
    return graph.add("Add", x, graph.constant("offset", offset.astype(np.float32)))


def _mirror(graph: _Graph, x: str) -> str:
    """(B, channels, S, S) with the columns in reverse: backwards from the last to the first."""
    bounds = {"mirror_start": -1, "mirror_end": np.iinfo(np.int64).min, "mirror_axis": 3, "mirror_step": -1}
    return graph.add("Slice", x, *(graph.constant(name, np.array([value])) for name, value in bounds.items()))


def _mean(graph: _Graph, tensors: list[str]) -> str:
    return graph.add("Mean", *tensors) if len(tensors) > 1 else tensors[0]


def _densenet(graph: _Graph, x: str, prefix: str, shape: Mapping[str, Any]) -> str:
    """See `models.densenet.DenseNet`."""
    block_sizes = shape["block_sizes"]

    def conv(x: str, name: str, stride: int = 1) -> str:
        size = graph.tensors[f"{prefix}{name}.weight"].shape[-1]
        return graph.add("Conv", x, graph.weight(f"{prefix}{name}.weight"), strides=[stride] * 2, pads=[size // 2] * 4)

    def norm(x: str, name: str) -> str:
        leaves = ("weight", "bias", "running_mean", "running_var")
        weights = [graph.weight(f"{prefix}{name}.{leaf}") for leaf in leaves]
        return graph.add("Relu", graph.add("BatchNormalization", x, *weights, epsilon=_EPSILON))

    x = norm(conv(x, "conv0", stride=2), "norm0")
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for block, layers in enumerate(block_sizes, start=1):
        for layer in range(1, layers + 1):
            name = f"denseblock{block}.denselayer{layer}"
            new = conv(norm(x, f"{name}.norm1"), f"{name}.conv1")
            x = graph.add("Concat", x, conv(norm(new, f"{name}.norm2"), f"{name}.conv2"), axis=1)
        if block < len(block_sizes):
            x = graph.add("AveragePool", norm(x, f"transition{block}.norm"), kernel_shape=[2, 2], strides=[2, 2])
            x = conv(x, f"transition{block}.conv")
    return norm(x, "norm5")


def _convnext(graph: _Graph, x: str, prefix: str, shape: Mapping[str, Any]) -> str:
    """See `models.convnext.ConvNeXt`."""
    for name, value in {
        "half": 0.5,
        "one": 1.0,
        "root_of_half": 0.5**0.5,
        "epsilon": convnext.LAYER_NORM_EPSILON,
    }.items():
        graph.constant(name, np.float32(value))

    def weight(name: str, transposed: bool = False) -> str:
        value = graph.tensors[prefix + name]
        return graph.constant(prefix + name, value.T if transposed else value)

    def per_map(name: str) -> str:
        return graph.constant(prefix + name, graph.tensors[prefix + name][:, None, None])

    def conv(x: str, name: str, **attributes: Any) -> str:
        return graph.add("Conv", x, weight(f"{name}.weight"), weight(f"{name}.bias"), **attributes)

    def norm(x: str, name: str) -> str:  # over the last axis
        leaves = (weight(f"{name}.{leaf}") for leaf in ("weight", "bias"))
        return graph.add("LayerNormalization", x, *leaves, axis=-1, epsilon=convnext.LAYER_NORM_EPSILON)

    def maps_first(x: str) -> str:
        return graph.add("Transpose", x, perm=[0, 3, 1, 2])

    def maps_last(x: str) -> str:
        return graph.add("Transpose", x, perm=[0, 2, 3, 1])

    def dense(x: str, name: str) -> str:
        return graph.add("Add", graph.add("MatMul", x, weight(f"{name}.weight", True)), weight(f"{name}.bias"))

    def gelu(x: str) -> str:  # an operator of its own only since opset 20
        share = graph.add("Add", graph.add("Erf", graph.add("Mul", x, "root_of_half")), "one")
        return graph.add("Mul", graph.add("Mul", x, "half"), share)

    def block(x: str, name: str, width: int) -> str:
        y = maps_last(conv(x, f"{name}.conv_dw", pads=[3] * 4, group=width))
        y = dense(gelu(dense(norm(y, f"{name}.norm"), f"{name}.mlp_fc1")), f"{name}.mlp_fc2")
        return graph.add("Add", x, maps_first(graph.add("Mul", y, weight(f"{name}.gamma"))))

    x = maps_first(norm(maps_last(conv(x, "stem_0", strides=[convnext.PATCH] * 2)), "stem_1"))
    for stage, (depth, width) in enumerate(zip(shape["depths"], shape["widths"], strict=True)):
        if stage:
            x = maps_first(norm(maps_last(x), f"stages_{stage}_downsample_0"))
            x = conv(x, f"stages_{stage}_downsample_1", strides=[2, 2])
        for number in range(depth):
            x = block(x, f"stages_{stage}_blocks_{number}", width)
    pooled = graph.add("GlobalAveragePool", x)
    mean = graph.add("ReduceMean", pooled, axes=[1])
    deviation = graph.add("Sub", pooled, mean)
    variance = graph.add("ReduceMean", graph.add("Mul", deviation, deviation), axes=[1])
    standard = graph.add("Div", graph.add("Sub", x, mean), graph.add("Sqrt", graph.add("Add", variance, "epsilon")))
    return graph.add("Add", graph.add("Mul", standard, per_map("head_norm.weight")), per_map("head_norm.bias"))


# {backbone: (graph, name of the images, prefix of the tensors' names, shape) -> name of the feature maps}.
GRAPHS: dict[str, Callable[[_Graph, str, str, Mapping[str, Any]], str]] = {
    "densenet": _densenet,
    "convnext_tiny": _convnext,
    "convnext_base": _convnext,
}
