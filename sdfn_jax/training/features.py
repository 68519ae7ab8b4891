"""Pooled features of frozen extractors, computed once and kept on disk: all that the fusion head is trained on (B.4).

With frozen extractors and a flip as the only augmentation, an image has the same features in every epoch: one vector of
the image, one of its mirror image. `<folder>/<split>.npy` is a table with a row an image; `<split>.jsonl` says what it
was computed from, and the SHA-256 of each finished block of rows. A block is listed only when it is on the disk: the
computation can be killed at any moment, and goes on behind the last block listed.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sdfn_jax.core import processes, progress, run_identity
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.models.sdfn import branch_variables, pool
from sdfn_jax.training.input_pipeline import Examples, Rows, evaluation_batches, one_ahead
from sdfn_jax.training.tasks import Task


class Extractors:
    """The frozen branches of a fusion network at work.

    Attributes:
      width: number of features of an image, those of all branches side by side.
    """

    def __init__(self, task: Task, config: ConfigDict, variables: Mapping[str, dict], mesh: Mesh):
        """Puts the branches on the devices.

        Args:
          task: of the fusion network.
          config: of the stage.
          variables: of the network.
          mesh: devices of this process; a batch is shared out over them.
        """
        everywhere, self._shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
        self._select, self._batch_size = task.select, config.evaluation_batch_size
        self.width = variables["params"]["head"]["kernel"].shape[0]
        self._branches = {
            branch: jax.device_put(branch_variables(variables, branch), everywhere) for branch in task.model.branches
        }
        extractor = task.model.extractor()
        preprocessing, order = Preprocessing.of(config), task.model.branches

        def pooled(branches: dict, images: dict) -> jax.Array:
            # One program for all branches: on a CPU they run side by side.
            pools = [pool(extractor.apply(branches[name], preprocessing(images[name]), train=False)) for name in order]
            return jnp.concatenate(pools, axis=-1)

        self._pooled = jax.jit(pooled, in_shardings=(everywhere, self._shared), out_shardings=everywhere)

    def blocks(self, examples: Examples, row: np.dtype) -> Iterator[np.ndarray]:
        """Returns blocks of rows in the order of the examples; the next is under way while one is used."""
        mirrors = (slice(None), slice(None, None, -1))[: row["features"].shape[0]]
        started = (
            ([self._start(batch, mirror) for mirror in mirrors], batch["labels"], count)
            for batch, count in evaluation_batches(examples, self._select, self._batch_size)
        )
        return (_block(row, *found) for found in one_ahead(started))

    def _start(self, batch: dict[str, np.ndarray], mirror: slice) -> jax.Array:
        """Starts the branches on their images, (B, S, S) with the columns in this order; does not wait for them."""
        images = {branch: batch[branch][:, :, mirror] for branch in self._branches}
        return self._pooled(self._branches, jax.device_put(images, self._shared))


def cached(
    extractors: Extractors, examples: Examples, path: str | Path, *, mirrored: bool, origin: Mapping[str, Any]
) -> Rows:
    """Returns the features and labels of every example, computing those that are not on the disk yet.

    Of several processes the first computes, on its own devices, while the others wait; all read the table.

    A table that was computed from anything else than `origin` says, or is damaged, is not used but computed anew, and
    why is printed.

    Args:
      extractors: the frozen branches.
      examples: a split of a prepared chestxray14.
      path: the table's file, `.npy`; the record beside it ends in `.jsonl`.
      mirrored: whether the mirror images are wanted too.
      origin: whatever decides the features, as JSON can hold it.

    Returns:
      rows of `features`, (V, D) float32, and `labels`, (14,) uint8: V = 2 with mirror images (the image first), 1
      without; D is the width of the head. They are read from the disk as they are needed.

    Raises:
      UserError: where the disk has no room.
    """
    features = ("features", np.float32, (1 + mirrored, extractors.width))
    row = np.dtype([features, ("labels", np.uint8, np.shape(examples[0]["labels"]))], align=True)
    table = _Table(Path(path), row, len(examples), dict(origin))

    def complete() -> None:
        done = table.open()
        if done == len(examples):
            return
        table.check_room(done)
        rest = examples.take(np.arange(done, len(examples)))
        what = f"compute the extractors' features, {table.path.stem}"
        with progress.bar(what=what, unit="image", total=len(examples), initial=done) as bar:
            for block in extractors.blocks(rest, row):
                table.append(block)
                bar.update(len(block))

    # It is two passes over the images, beside the training of the extractors a trifle: not worth sharing out.
    processes.by_first(complete)
    return Rows(np.load(table.path, mmap_mode="r"))


def _block(row: np.dtype, pools: list[jax.Array], labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the rows of a batch, whose first `count` images are real."""
    block = np.zeros(count, row)  # zeros: the padding between fields has a digest too
    block["labels"] = labels[:count]
    for variant, features in enumerate(jax.device_get(pools)):
        block["features"][:, variant] = features[:count]
    return block


class _Table:
    """A table on the disk that grows by blocks of rows, and the record of what it holds."""

    def __init__(self, path: Path, row: np.dtype, count: int, origin: dict):
        self.path, self.row, self.count = path, row, count
        self.record = path.with_suffix(".jsonl")
        self.header = _header(row, count)
        self.origin = json.loads(json.dumps({**origin, "images": count, "row": str(row)}))

    def open(self) -> int:
        """Makes the table ready for the next block, with what was written before where it is sound.

        Returns:
          the number of rows that are there.
        """
        origin, blocks = self._recorded()
        if origin is None or not self.path.is_file():
            return self._begin()
        if changed := _changed(origin, self.origin):
            print(f"{self.path} was computed from something else ({'; '.join(changed[:5])}): it is computed anew")
            return self._begin()
        sound = self._sound(blocks)
        done = sound[-1].rows if sound else 0
        if len(sound) < len(blocks):
            print(f"{self.path} is damaged: from image {done + 1} of {self.count} on it is computed anew")
        if not sound:
            return self._begin()
        self._cut(sound)
        return done

    def append(self, rows: np.ndarray) -> None:
        """Writes the next rows to the disk, then says so."""
        data = rows.tobytes()
        with self.path.open("r+b") as file:
            before = (file.seek(0, os.SEEK_END) - len(self.header)) // self.row.itemsize
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with self.record.open("a") as file:
            file.write(_line(_Block(before + len(rows), hashlib.sha256(data).hexdigest())._asdict()))

    def check_room(self, done: int) -> None:
        """Raises UserError where the rest of the table does not fit on the disk."""
        needed, free = (self.count - done) * self.row.itemsize, shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise UserError(
                f"the features take {needed / 1e9:.1f} GB in {self.path.parent}, where {free / 1e9:.1f} GB are free: "
                "make room, give another --config.workdir, or --config.cache_features=False"
            )

    def _begin(self) -> int:
        self.record.unlink(missing_ok=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(self.header)
        with appears_when_complete(self.record) as record:
            record.write_text(_line(self.origin))
        return 0

    def _recorded(self) -> tuple[dict | None, list["_Block"]]:
        """Returns the origin and the blocks of the record, as far as its lines are whole."""
        if not self.record.is_file():
            return None, []
        found = []
        for line in self.record.read_bytes().splitlines(keepends=True):
            try:
                found.append(_Block(**json.loads(line)) if found else dict(json.loads(line)))
            except (ValueError, TypeError):
                break  # a process was killed while it wrote this line, or it is damaged
        return (run_identity.under_present_names(found[0]), found[1:]) if found else (None, [])

    def _sound(self, blocks: list["_Block"]) -> list["_Block"]:
        """Returns the blocks, from the first on, that are on the disk as they were written."""
        with self.path.open("rb") as file:
            if file.read(len(self.header)) != self.header:
                return []
            done = 0
            for number, block in enumerate(blocks):
                data = file.read((block.rows - done) * self.row.itemsize)
                if hashlib.sha256(data).hexdigest() != block.sha256:
                    return blocks[:number]
                done = block.rows
        return blocks

    def _cut(self, blocks: list["_Block"]) -> None:
        """Drops what lies behind these blocks: half a block or half a line of a killed process, or damage."""
        size = len(self.header) + blocks[-1].rows * self.row.itemsize
        if self.path.stat().st_size != size:
            os.truncate(self.path, size)
        text = "".join(map(_line, [self.origin, *(block._asdict() for block in blocks)]))
        if self.record.read_bytes() != text.encode():
            with appears_when_complete(self.record) as record:
                record.write_text(text)


class _Block(NamedTuple):
    """A line of the record.

    Attributes:
      rows: number of rows in the table up to the end of this block.
      sha256: of the block's bytes.
    """

    rows: int
    sha256: str


def _header(row: np.dtype, count: int) -> bytes:
    """Returns the beginning of the `.npy` file of a whole table."""
    file = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(row), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def _line(record: dict) -> str:
    return json.dumps(record) + "\n"


def _changed(there: dict, asked: dict) -> list[str]:
    return [
        f"{name}: {json.dumps(there.get(name))[:60]} then, {json.dumps(asked.get(name))[:60]} now"
        for name in sorted({*there, *asked})
        if there.get(name) != asked.get(name)
    ]
