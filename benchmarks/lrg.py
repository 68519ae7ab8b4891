"""The lung region generator: the U-Net next to PyTorch's, and the box table next to the U-Net alone.

python -m benchmarks.lrg --output=lrg.json

The network has the published width and random weights, and takes 256 x 256 pixels. Films are those of
$SDFN_DATA/chestxray14/images, or drawings of 1024 x 1024. Both sides run in one process, in turn, after one round that
does not count. On a GPU PyTorch is on it too.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax

from benchmarks import films, record
from sdfn_jax.lungs import make_box_table
from sdfn_jax.lungs import segmenter as lungs_segmenter
from sdfn_jax.lungs.lung_boxes import PostProcessing
from sdfn_jax.models import kernels
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.unet import UNet

LEARNING_RATE = 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--films", type=int, default=64, help="of the box table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tiny network and few films: shows that it runs")
    parser.add_argument("--output", default="lrg.json")
    options = parser.parse_args()
    if options.quick:
        options.batch_size, options.films, options.rounds = 2, 4, 1
    record.with_one_allocator()

    filters, size = ((2, 2, 3), 32) if options.quick else ((32, 64, 64, 128, 256), 256)
    segmenter = with_random_weights(filters, size, options.batch_size)
    rows, not_run = compare_networks(segmenter, options)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source, kind = films.chestxray14(folder / "films", options.films)
        paths = films.paths(source, options.films)
        rows += compare_box_table(segmenter, paths, folder, options)
    packages = ["jax", "flax", "numpy", *([] if not_run else ["torch"])]
    settings = {"filters": segmenter.model.filters, "size": segmenter.size, "batch_size": options.batch_size}
    record.write(options.output, rows, packages, settings=settings, films=f"{len(paths)} {kind}", not_run=not_run)


def with_random_weights(filters, size, batch_size):
    model = kernels.for_backend(UNet)(filters)  # what users get
    variables = initial_variables(model, 0, jax.ShapeDtypeStruct((1, size, size, 1), np.float32))
    return lungs_segmenter.Segmenter(
        model, variables, 0.5, 0.25, "equalize_clipped", size, "random weights", PostProcessing(), batch_size
    )


def compare_networks(segmenter, options):
    """Returns the rows of the network by itself, and the peers that are not installed."""
    shape = (options.batch_size, segmenter.size, segmenter.size)
    rng = np.random.default_rng(0)
    inputs, masks = rng.random(shape, np.float32), (rng.random(shape) < 0.5).astype(np.float32)
    inference = {"ours": lambda: np.asarray(segmenter.start(inputs))}
    training, not_run = {"ours": training_step(segmenter, inputs, masks)}, {}
    try:
        import torch
    except ImportError as error:
        not_run["PyTorch"] = str(error)
    else:
        for name, layout in {"PyTorch channels_last": "channels_last", "PyTorch": "contiguous_format"}.items():
            inference[name], training[name] = torch_sides(torch, segmenter, inputs, masks, getattr(torch, layout))
    tolerance = 1e-4 if jax.default_backend() == "cpu" else 1e-2  # a GPU multiplies in TF32
    for name, side in inference.items():
        np.testing.assert_allclose(side(), inference["ours"](), atol=tolerance, err_msg=name)
    for name, step in training.items():
        np.testing.assert_allclose(step(), training["ours"](), rtol=tolerance, err_msg=name)
    rows = []
    for sides, what, rounds, goal in (
        (inference, f"U-Net, inference, batch {options.batch_size}", options.rounds, 1.0),
        (training, f"U-Net, training step, batch {options.batch_size}", -(-options.rounds // 2), None),
    ):
        rates = {name: options.batch_size / seconds for name, seconds in record.medians(sides, rounds).items()}
        rows += record.rate(what, rates.pop("ours"), "images/s", rates, goal)
    return rows, not_run


def training_step(segmenter, inputs, masks):
    """Returns a step (cross-entropy, Adam) from the same weights each time; it returns the loss."""
    optimizer = optax.adam(LEARNING_RATE)

    @jax.jit
    def step(params, adam, images, masks):
        def loss(params):
            logits = segmenter.model.apply({"params": params}, images[..., None])
            return optax.sigmoid_binary_cross_entropy(logits, masks).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, adam = optimizer.update(gradients, adam)
        return value, optax.apply_updates(params, updates), adam

    params = jax.device_put(segmenter.variables["params"])
    adam = optimizer.init(params)
    standardised = (inputs - segmenter.mean) / segmenter.std
    return lambda: jax.block_until_ready(step(params, adam, standardised, masks))[0]


def torch_sides(torch, segmenter, inputs, masks, memory_format):
    """Returns inference and a training step of the same network in PyTorch's plain layers."""
    functional = torch.nn.functional
    device = {"cpu": "cpu", "gpu": "cuda"}[jax.default_backend()]
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as in JAX
    weights = {
        name: (
            torch.tensor(layer["kernel"].transpose(3, 2, 0, 1), device=device).contiguous(memory_format=memory_format),
            torch.tensor(layer["bias"], device=device),
        )
        for name, layer in segmenter.variables["params"].items()
    }
    parameters = [weight.requires_grad_() for layer in weights.values() for weight in layer]
    masks = torch.tensor(masks, device=device)

    def network():
        def conv(x, name):
            return functional.conv2d(x, *weights[name], padding=1)

        x = (torch.tensor(inputs, device=device) - segmenter.mean) / segmenter.std
        x = x[:, None].contiguous(memory_format=memory_format)
        skips = []
        levels = len(segmenter.model.filters) - 1
        for level in range(levels):
            x = conv(conv(x, f"down{level}_conv1").relu_(), f"down{level}_conv2").relu_()
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = conv(x, "bottom_conv").relu_()
        for level in reversed(range(levels)):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = conv(conv(x, f"up{level}_conv1").relu_(), f"up{level}_conv2").relu_()
            x = conv(torch.cat([skips[level], x], dim=1), f"up{level}_conv3").relu_()
        return conv(x, "output_conv")[:, 0]

    def infer():
        with torch.inference_mode():
            return torch.sigmoid(network()).cpu().numpy()

    optimizer = torch.optim.Adam(parameters, LEARNING_RATE)
    start = [parameter.detach().clone() for parameter in parameters]

    def train():
        with torch.no_grad():
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(network(), masks)
        loss.backward()
        optimizer.step()
        return loss.item()

    return infer, train


def compare_box_table(segmenter, paths, folder, options):
    """Returns the rows of the whole way from files to the box table, next to the network on films in memory."""
    inputs = np.random.default_rng(0).random((options.batch_size, segmenter.size, segmenter.size), np.float32)
    tables = (folder / f"{number}.csv" for number in itertools.count())

    def network():
        # As the box table feeds it: the next batch is started before the last one is waited for.
        under_way = segmenter.start(inputs)
        for _ in range(len(paths) // options.batch_size - 1):
            under_way, last = segmenter.start(inputs), under_way
            np.asarray(last)
        np.asarray(under_way)

    sides = {
        "box table": lambda: make_box_table.make_box_table(segmenter, paths, next(tables), segmenter.postprocessing),
        "the U-Net alone": network,
    }
    taken = record.medians(sides, options.rounds)
    rates = {name: len(paths) / seconds for name, seconds in taken.items()}
    return record.rate("box table, from files", rates.pop("box table"), "images/s", rates, goal=0.9)


if __name__ == "__main__":
    main()
