"""Prepared TFDS folder -> Grain -> batches of NumPy arrays -> sharded device batches.

A batch is global; each process of a run reads only the rows of its own devices.

The step number is the whole data state: the order of an epoch is a function of (seed, epoch), so resuming in the
middle of an epoch is a slice of it, and a resumed run sees exactly the batches that an uninterrupted one does.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import tensorflow_datasets as tfds
from absl import flags

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.parallel import one_ahead

# Few elements ahead: after `batch`, one element is a whole batch (Grain's own default would hold 500 of them).
_READ_AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
_ALL = slice(None)  # a single process reads every row of a batch


class Examples(Sequence):
    """The examples of one or several splits of a prepared data set, by number.

    `examples[i]` is a dict: images and masks as (S, S) uint8, texts as str, image files as bytes,
    everything else as TFDS returns it.
    """

    def __init__(self, directory: str | Path, splits: Sequence[str], indices: np.ndarray | None = None):
        """Opens them; nothing is read yet.

        Args:
          directory: a prepared data set (`.../size224_labels2017/1.0.0`).
          splits: names of its splits, concatenated in this order.
          indices: the examples to keep, in this order; all if None.

        Raises:
          UserError: for a missing split.
        """
        builder = tfds.builder_from_directory(directory)
        for split in splits:
            if split not in builder.info.splits:
                raise UserError(
                    f"{directory} has no split {split!r}; it has {', '.join(builder.info.splits)}. "
                    "A split without images is not written: see the counts that the preparation printed."
                )
        self._features = builder.info.features
        self._shapes = {
            name: feature.shape
            for name, feature in self._features.items()
            if isinstance(feature, tfds.features.Tensor) and len(feature.shape) == 2
        }
        self._texts = [name for name, feature in self._features.items() if isinstance(feature, tfds.features.Text)]
        encoded = [name for name, feature in self._features.items() if isinstance(feature, tfds.features.Image)]
        decoders = {name: tfds.decode.SkipDecoding() for name in (*self._shapes, *encoded)}
        self._sources = [builder.as_data_source(split, decoders=decoders) for split in splits]
        self._starts = np.cumsum([0] + [len(source) for source in self._sources])
        self._indices = np.arange(self._starts[-1]) if indices is None else np.asarray(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict:  # type: ignore[override]  # no slices
        source, place = self._find(index)
        example = dict(source[place])
        for name, shape in self._shapes.items():
            example[name] = np.frombuffer(example[name], np.uint8).reshape(shape)
        return self._with_texts(example)

    def has(self, *names: str) -> bool:
        """Returns whether the data set has all of these features."""
        return all(name in self._features for name in names)

    def fields(self, *names: str) -> Iterator[dict]:
        """Yields only these features of every example, in order; images are not decoded for the sake of a name."""
        features = tfds.features.FeaturesDict({name: self._features[name] for name in names})
        for index in range(len(self)):
            source, place = self._find(index)
            yield self._with_texts(features.deserialize_example_np(source.data_source[place]))

    def take(self, indices: np.ndarray) -> "Examples":
        """Returns the examples at these places, in this order."""
        chosen = object.__new__(Examples)
        chosen.__dict__.update(self.__dict__)
        chosen._indices = self._indices[indices]
        return chosen

    def _find(self, index: int) -> tuple[Any, int]:
        """Returns the split's source that holds an example, and its place there."""
        place = int(self._indices[index])
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._sources[part], place - int(self._starts[part])

    def _with_texts(self, example: dict) -> dict:
        return {name: value.decode() if name in self._texts else value for name, value in example.items()}


class Rows(Sequence):
    """Examples in one array, a row each: whole batches are taken from it at once, without threads.

    `rows[i]` is a dict with a value for each field; `rows[array of i]` one with an array for each field.
    """

    def __init__(self, table: np.ndarray, indices: np.ndarray | None = None):
        """Takes the array; a memory map is read only as its rows are requested.

        Args:
          table: (N,) of a structured dtype.
          indices: the rows to keep, in this order; all if None.
        """
        self._table = table
        self._indices = np.arange(len(table)) if indices is None else np.asarray(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(  # type: ignore[override]  # several rows are one dict too
        self, index: int | slice | np.ndarray
    ) -> dict[str, np.ndarray]:
        rows = np.asarray(self._table[self._indices[index]])
        return {name: rows[name] for name in rows.dtype.names}

    def take(self, indices: np.ndarray) -> "Rows":
        """Returns the rows at these places, in this order."""
        return Rows(self._table, self._indices[indices])


def steps_per_epoch(examples: Examples | Rows, batch_size: int) -> int:
    """Returns the number of whole batches; the remainder is shuffled into the next epoch.

    Raises:
      UserError: if there is not even one batch.
    """
    steps = len(examples) // batch_size
    if steps == 0:
        raise UserError(
            f"the training split has {len(examples)} images, fewer than one batch of {batch_size}; "
            "lower --config.batch_size or bring more images"
        )
    return steps


def rows_of_this_process(sharding: jax.sharding.Sharding, batch_size: int) -> slice:
    """Returns which rows of each global batch of `batch_size` belong to the devices of this process."""
    parts = sharding.addressable_devices_indices_map((batch_size,)).values()
    bounds = [part.indices(batch_size) for (part,) in parts]
    return slice(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds))


def training_batches(
    examples: Examples,
    select: Callable[[dict], dict],
    batch_size: int,
    seed: int,
    epoch: int,
    first_step: int = 0,
    rows: slice = _ALL,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields an epoch's batches, from `first_step` of that epoch on.

    Args:
      examples: the training split.
      select: maps an example to the arrays of a batch, each stacked along a new first axis.
      batch_size: B; the last partial batch is dropped.
      seed: of the run.
      epoch: counts from 0; each has its own order.
      first_step: batches of this epoch that an earlier run has already used.
      rows: which rows of each batch are read and yielded.
    """
    steps = steps_per_epoch(examples, batch_size)
    order = np.random.default_rng((seed, epoch)).permutation(len(examples))
    order = order[first_step * batch_size : steps * batch_size]
    return _batches(examples, order.reshape(-1, batch_size)[:, rows], select)


def evaluation_batches(
    examples: Examples, select: Callable[[dict], dict], batch_size: int, rows: slice = _ALL
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yields every example once, in order: (`rows` of a batch of B, how many examples of the whole batch are real).

    The last batch is padded with copies of the last example, so that one compiled shape serves all.
    """
    starts = range(0, len(examples), batch_size)
    places = np.arange(len(starts) * batch_size).clip(max=len(examples) - 1).reshape(-1, batch_size)
    counts = (min(batch_size, len(examples) - start) for start in starts)
    return zip(_batches(examples, places[:, rows], select), counts, strict=True)


def to_device(batches: Iterable[dict[str, np.ndarray]], sharding: jax.sharding.Sharding) -> Iterator[dict]:
    """Yields the batches on the devices, always with the next one under way."""
    return one_ahead(put(batch, sharding) for batch in batches)


def put(batch: dict[str, np.ndarray], sharding: jax.sharding.Sharding) -> dict[str, jax.Array]:
    """Starts to copy a batch to the devices; each process of a run contributes its own rows."""
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def _batches(examples: Examples, places: np.ndarray, select: Callable[[dict], dict]) -> Iterator[dict[str, np.ndarray]]:
    """Yields a batch for each row of `places`, (steps, B)."""
    if places.size == 0:
        return iter(())  # a run stopped between an epoch's last step and its validation
    if isinstance(examples, Rows):
        return (select(examples[batch]) for batch in places)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which only absl's own app.run parses (google/grain#1361)
    dataset = grain.MapDataset.source(examples.take(places.ravel())).map(select)
    return iter(dataset.batch(places.shape[1]).to_iter_dataset(_READ_AHEAD))
