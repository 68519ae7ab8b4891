"""Pooled features of frozen extractors, computed once and kept on disk: all that the fusion head is trained on (B.4).

With frozen extractors and a flip as the only augmentation, an image has the same features in every epoch: one vector of
the image, one of its mirror image. `<folder>/<split>.npy` has one row per image; the journal `<split>.jsonl` holds what
it was computed from, and the SHA-256 of each finished block of rows. A block is listed only when it is on
disk: the computation can be killed at any moment, and resumes after the last block that is there as it was listed.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sdfn_jax.core import processes, progress
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.journal import Journal, OtherWorkError
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.models.sdfn import branch_variables, pool
from sdfn_jax.training.input_pipeline import Examples, Rows, evaluation_batches, one_ahead
from sdfn_jax.training.tasks import Task


class Extractors:
    """The frozen branches of a fusion network at work.

    Attributes:
      width: number of features of an image, over all branches.
      findings: number of labels of an image.
    """

    def __init__(self, task: Task, config: ConfigDict, variables: Mapping[str, dict], mesh: Mesh):
        """Puts the branches on the devices.

        Args:
          task: of the fusion network.
          config: of the stage.
          variables: of the network.
          mesh: devices of this process; a batch is divided among them.
        """
        everywhere, self._shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
        self._select, self._batch_size = task.select, config.evaluation_batch_size
        self.width, self.findings = variables["params"]["head"]["kernel"].shape
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
    """Returns the features and labels of every example, computing those that are not on disk yet.

    Process 0 computes, on its own devices, while the others wait; all read the table. A table that was computed from
    anything but `origin`, or is damaged, is computed again, from the first wrong row on, and the reason is printed.

    Args:
      extractors: the frozen branches.
      examples: a split of a prepared data set.
      path: the table's file, `.npy`; the journal next to it ends in `.jsonl`.
      mirrored: whether to include the mirror images.
      origin: whatever determines the features, as JSON values.

    Returns:
      rows of `features`, (V, D) float32, and `labels`, (K,) uint8 codes: V = 2 with mirror images (the image first), 1
      without; D is the width of the head. They are read from disk as they are needed.

    Raises:
      UserError: if the disk has no room, or while another command computes the same table.
    """
    path, count = Path(path), len(examples)
    features = ("features", np.float32, (1 + mirrored, extractors.width))
    row = np.dtype([features, ("labels", np.uint8, (extractors.findings,))], align=True)

    def complete() -> None:
        with _journal(path, {**origin, "images": count, "row": str(row)}) as journal:
            table = _Table(path, row, count, journal)
            if table.done == count:
                return
            table.check_room()
            rest = examples.take(np.arange(table.done, count))
            what = f"compute the extractors' features, {path.stem}"
            with progress.bar(what=what, unit="image", total=count, initial=table.done) as bar:
                for block in extractors.blocks(rest, row):
                    table.append(block)
                    bar.update(len(block))

    # Two passes over the images: next to the training of the extractors too little to share out.
    processes.by_first(complete)
    return Rows(np.load(path, mmap_mode="r"))


def _block(row: np.dtype, pools: list[jax.Array], labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the rows of a batch, whose first `count` images are real."""
    block = np.zeros(count, row)  # zeros: the padding between fields has a digest too
    block["labels"] = labels[:count]
    for variant, features in enumerate(jax.device_get(pools)):
        block["features"][:, variant] = features[:count]
    return block


def _journal(path: Path, origin: Mapping[str, Any]) -> Journal:
    """Opens the journal of a table, which begins again if it is that of another origin."""
    record = path.with_suffix(".jsonl")
    made_by = json.loads(json.dumps(origin, sort_keys=True))  # one spelling, whatever order the caller has
    try:
        return Journal(record, made_by)
    except OtherWorkError as error:
        print(f"{path} was computed from something else ({_why(error.begun, made_by)}): it is computed again")
    record.unlink()
    return Journal(record, made_by)


class _Table:
    """A table on disk that grows by blocks of rows.

    Its journal has {first row of a block: its number of rows and the SHA-256 of its bytes}.

    Attributes:
      done: number of rows that are there.
    """

    def __init__(self, path: Path, row: np.dtype, count: int, journal: Journal):
        """Makes the table ready for the next block, with the rows that are there as the journal lists them."""
        self._path, self._row, self._count, self._journal = path, row, count, journal
        self._header = _header(row, count)
        self.done = self._sound_rows()
        if str(self.done) in journal:
            print(f"{path} is damaged: from image {self.done + 1} of {count} on it is computed again")
        if self.done == 0:
            path.write_bytes(self._header)
        elif path.stat().st_size != self._size():
            os.truncate(path, self._size())  # half a block of a killed process, or damage

    def append(self, rows: np.ndarray) -> None:
        """Writes the next rows to the disk, then lists them."""
        data = rows.tobytes()
        with self._path.open("r+b") as file:
            file.seek(self._size())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        block = {"rows": len(rows), "sha256": hashlib.sha256(data).hexdigest()}
        if self._listed(self.done) != block:
            self._journal.write(str(self.done), block)
        self.done += len(rows)

    def check_room(self) -> None:
        """Raises UserError if the rest of the table does not fit on the disk."""
        needed, free = (self._count - self.done) * self._row.itemsize, shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise UserError(
                f"the features take {needed / 1e9:.1f} GB in {self._path.parent}, but only {free / 1e9:.1f} "
                "GB are free: make room, choose another --config.workdir, or --config.cache_features=False"
            )

    def _sound_rows(self) -> int:
        """Returns the number of rows, from the first on, that are on disk as they were listed."""
        if not self._path.is_file():
            return 0
        done = 0
        with self._path.open("rb") as file:
            if file.read(len(self._header)) != self._header:
                return 0
            while (block := self._listed(done)) is not None:
                data = file.read(block["rows"] * self._row.itemsize)
                if hashlib.sha256(data).hexdigest() != block["sha256"]:
                    break
                done += block["rows"]
        return done

    def _listed(self, first: int) -> dict | None:
        """Returns the block that begins with a row, if it is listed."""
        return self._journal.get(str(first))

    def _size(self) -> int:
        """Returns the size of the file up to the last row that is done."""
        return len(self._header) + self.done * self._row.itemsize


def _header(row: np.dtype, count: int) -> bytes:
    """Returns the beginning of the `.npy` file of a whole table."""
    file = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(row), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def _why(begun: dict | None, asked: dict) -> str:
    """Says what another table was computed from."""
    if begun is None:
        return "its journal is damaged or of an older version"
    changed = [
        f"{name}: {json.dumps(begun.get(name))[:60]} then, {json.dumps(asked.get(name))[:60]} now"
        for name in sorted({*begun, *asked})
        if begun.get(name) != asked.get(name)
    ]
    return "; ".join(changed[:5])
