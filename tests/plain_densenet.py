"""The textbook DenseNet in Flax's own layers: what ours must equal, and be faster than."""

import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util


class PlainDenseNet(nn.Module):
    """The textbook definition, in Flax's own layers, under the same names."""

    growth_rate: int
    block_sizes: tuple[int, ...]
    init_features: int
    bottleneck: int

    @nn.compact
    def __call__(self, x, train):
        def conv(features, size, stride, name):
            padding = [(size // 2, size // 2)] * 2
            return nn.Conv(features, (size, size), stride, padding, use_bias=False, name=name)

        def norm(x, name):
            return nn.relu(nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, use_fast_variance=False, name=name)(x))

        x = norm(conv(self.init_features, 7, 2, "conv0")(x), "norm0")
        x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for block, layers in enumerate(self.block_sizes, start=1):
            for layer in range(1, layers + 1):
                name = f"denseblock{block}.denselayer{layer}."
                y = conv(self.bottleneck * self.growth_rate, 1, 1, name + "conv1")(norm(x, name + "norm1"))
                y = conv(self.growth_rate, 3, 1, name + "conv2")(norm(y, name + "norm2"))
                x = jnp.concatenate([x, y], axis=-1)
            if block < len(self.block_sizes):
                x = conv(x.shape[-1] // 2, 1, 1, f"transition{block}.conv")(norm(x, f"transition{block}.norm"))
                x = nn.avg_pool(x, (2, 2), (2, 2))
        return norm(x, "norm5")


def dotted(tree):
    """Joins module names by dots, as `PlainDenseNet` writes them: {a: {b: {leaf: x}}} -> {a.b: {leaf: x}}."""
    flat = traverse_util.flatten_dict(tree)
    return traverse_util.unflatten_dict({(".".join(path[:-1]), path[-1]): leaf for path, leaf in flat.items()})
