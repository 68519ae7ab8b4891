"""The lung region generator at work (B.2): films -> lung masks -> lung boxes -> the box table.

python -m sdfn_jax.lrg FOLDER_OF_RADIOGRAPHS --checkpoint=runs/lrg --output=lung_boxes.csv

Stopped at any moment, the same command goes on where it was. Everything that turns a film into the network's input
stands here, once, for training, cross-validation and the box table alike.
"""

from sdfn_jax.core import errors

if __name__ == "__main__":
    errors.begin_command()

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from numpy.typing import ArrayLike

from sdfn_jax import box_record, lung_boxes
from sdfn_jax.core import checkpoint, jit_cache, progress, run_identity, sources
from sdfn_jax.core.arguments import positive
from sdfn_jax.core.errors import UserError, run_command
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.core.journal import Journal
from sdfn_jax.core.parallel import in_batches, map_in_order, one_ahead
from sdfn_jax.core.terminal import printable
from sdfn_jax.lung_boxes import BoxRow, LungRegion, PostProcessing
from sdfn_jax.models import kernels
from sdfn_jax.models.unet import UNet
from sdfn_jax.radiographs import find, pixels, reader

CONTRASTS = ("equalize", "equalize_clipped")
# A grey value may count in `equalize_clipped` for at most this many times the median count of those that occur.
_CLIP = 4.0
# A pixel is lung where its probability is above this ([21]).
THRESHOLD = 0.5
DRAWINGS = "this lung region generator was trained on drawings: its boxes on radiographs mean nothing"


def contrast(image: np.ndarray, method: str) -> np.ndarray:
    """Normalises a film's contrast by histogram equalisation: the share of pixels that are as dark or darker.

    Args:
      image: (H, W) uint8.
      method: `equalize`, as [21] (scikit-image's `equalize_hist`); or `equalize_clipped`, in which no grey value counts
        for more than 4 times the median one: a margin of whatever grey then takes up next to no contrast, and the chest
        looks as it would without the margin.

    Returns:
      (H, W) float32 in [0, 1].

    Raises:
      ValueError: for an unknown method, or an array of another kind.
    """
    pixels.check_radiograph(image)
    if method not in CONTRASTS:
        raise ValueError(f"unknown contrast normalisation {method!r}; expected one of {', '.join(CONTRASTS)}")
    counts = np.bincount(image.ravel(), minlength=256)
    if method == "equalize_clipped":
        counts = np.minimum(counts, _CLIP * np.median(counts[counts > 0]))
    shares = np.cumsum(counts)
    return (shares / shares[-1]).astype(np.float32)[image]


@dataclasses.dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained lung region generator.

    Attributes:
      model: the U-Net: (B, S, S, 1) float -> logits (B, S, S).
      variables: its variables.
      mean: of the training films' pixels after the contrast normalisation.
      std: their standard deviation.
      contrast: the method of `contrast`.
      size: S, the side of the network's square input, in pixels.
      digest: of the checkpoint.
      postprocessing: the numbers of B.2.2 that its config names.
      batch_size: films at a time, the one shape that is compiled.
      drawings: whether it was trained on the phantom's drawings.
    """

    model: nn.Module
    variables: dict
    mean: float
    std: float
    contrast: str
    size: int
    digest: str
    postprocessing: PostProcessing
    batch_size: int = 8
    drawings: bool = False

    @classmethod
    def load(cls, workdir: str | Path, batch_size: int = 8) -> "Segmenter":
        """Loads the best checkpoint of a trained LRG.

        Raises:
          UserError: where `workdir` holds no trained checkpoint, or one of another stage.
        """
        variables, metadata = checkpoint.read_best(workdir)
        config = metadata["config"]
        if config["stage"] != "lrg":
            raise UserError(
                f"{workdir} holds a checkpoint of the stage {config['stage']!r}; lung boxes need a lung region "
                "generator: give the working directory of the stage lrg"
            )
        network = kernels.for_backend(UNet)
        return cls(
            model=network(filters=tuple(config["model"]["filters"]), dtype=jnp.dtype(run_identity.precision(config))),
            variables=variables,
            mean=metadata["normalisation"]["mean"],
            std=metadata["normalisation"]["std"],
            contrast=config["contrast"],
            size=config["data"]["size"],
            digest=metadata["digest"],
            postprocessing=PostProcessing(**config["postprocessing"]),
            batch_size=batch_size,
            drawings=bool(metadata.get("drawings")),
        )

    def probabilities(self, films: Sequence[ArrayLike]) -> np.ndarray:
        """Returns each pixel's probability of being lung.

        Args:
          films: (N, S, S) uint8, any number of them; or each in any other form that `images.as_radiograph` takes.

        Returns:
          (N, S, S) float32 in [0, 1].

        Raises:
          ValueError: for a film that is none, or not of S x S pixels.
        """
        inputs = np.stack([contrast(self._film(number, film), self.contrast) for number, film in enumerate(films)])
        starts = range(0, len(inputs), self.batch_size)
        found = [self.start(inputs[start : start + self.batch_size]) for start in starts]
        return np.concatenate([np.asarray(batch) for batch in found])[: len(films)]

    def start(self, inputs: np.ndarray) -> jax.Array:
        """Starts the network on one batch and returns at once; `np.asarray` of the result waits for it.

        Args:
          inputs: (at most batch_size, S, S) float32, films after `contrast`.

        Returns:
          (batch_size, S, S) float32 probabilities; what `inputs` lacks is filled up and means nothing.
        """
        missing = self.batch_size - len(inputs)
        return self._network(self._on_device, np.pad(inputs, ((0, missing), (0, 0), (0, 0))))

    def _film(self, number: int, film: ArrayLike) -> np.ndarray:
        """Returns a film as (S, S) uint8."""
        try:
            film = reader.as_radiograph(film)
        except ValueError as error:
            raise ValueError(f"films[{number}]: {error}") from error
        if film.shape != (self.size, self.size):
            raise ValueError(
                f"films[{number}] has {film.shape[0]} x {film.shape[1]} pixels, where this network reads {self.size} x "
                f"{self.size}; images.resize makes them"
            )
        return film

    @functools.cached_property
    def _on_device(self) -> dict:
        return jax.device_put(self.variables)

    @functools.cached_property
    def _network(self):
        def network(variables: dict, inputs: jax.Array) -> jax.Array:
            standardised = (inputs - self.mean) / self.std
            return jax.nn.sigmoid(self.model.apply(variables, standardised[..., None]))

        def one_by_one(variables: dict, inputs: jax.Array) -> jax.Array:
            return jax.lax.map(lambda film: network(variables, film[None])[0], inputs)

        # On a CPU film by film: what one layer leaves in the cache the next one reads there.
        return jax.jit(one_by_one if jax.default_backend() == "cpu" else network)


@dataclasses.dataclass(frozen=True, eq=False)
class Film:
    """One radiograph on its way through the lung region generator.

    Attributes:
      path: its file.
      view: (S, S) uint8, as the network sees it before the contrast normalisation.
      size: (height, width) of the file, in pixels.
      region: its lung region.
      problem: what is wrong with a file that cannot be read; view, size and region are then None. None otherwise.
      source: the file as it was read, for a record; None for a film that comes from no file, or could not be opened.
    """

    path: Path
    view: np.ndarray | None = None
    size: tuple[int, int] | None = None
    region: LungRegion | None = None
    problem: str | None = None
    source: sources.Source | None = None


def find_radiographs(folder: str | Path) -> find.Found:
    """Finds every radiograph below a folder (`find.below`), told apart by file name alone, and sorted by it.

    Raises:
      UserError: where there is no such folder, no radiograph in it, or two of the same name and different content,
        which the box table, and the data sets that read it, could not tell apart.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the radiographs")
    found = find.below(folder)
    films, different, copies = find.by_name(found.films)
    if different:
        first, second = different[0]
        raise UserError(
            f"two radiographs named {first.name}: {first} and {second}; the box table tells them apart by name alone. "
            "Give a folder that holds each once (and no masks)."
        )
    left_out = [*found.left_out, *copies]
    if not films:
        raise UserError(
            f"no radiograph in {folder.resolve()} or below it; looked for files ending in {', '.join(reader.SUFFIXES)} "
            f"and for files that are DICOM by their content\n{find.describe(left_out)}".rstrip()
        )
    return find.Found(list(films.values()), left_out)


def report_left_out(found: find.Found, output: str | Path) -> None:
    """Prints what of a folder is not in a box table, and lists it beside the table, in `<its stem>_left_out.csv`."""
    output = Path(output)
    find.report(found.left_out, output.with_name(f"{output.stem}_left_out.csv"))


def segment_films(segmenter: Segmenter, paths: Iterable[Path], postprocessing: PostProcessing) -> Iterator[Film]:
    """Finds the lung region of every film, in order: reading, the network and post-processing run side by side.

    Threads read ahead of the network, and threads box what comes out of it; at most some ten batches are in memory. A
    film is always in the same batch, at the same place, for the same `paths`; an unreadable one leaves its place empty.

    Yields:
      a `Film` for each path; one that cannot be read has a `problem` and no region.
    """

    def read(path: Path) -> tuple[Film, np.ndarray]:
        source = None
        try:
            source = sources.look_at(path)
            image = reader.read_radiograph(path)
        except (ValueError, OSError) as error:
            return Film(path, problem=str(error), source=source), np.zeros((segmenter.size,) * 2, np.float32)
        view = pixels.resize(image, (segmenter.size,) * 2)
        return Film(path, view, image.shape, source=source), contrast(view, segmenter.contrast)

    def masks() -> Iterator[tuple[Film, np.ndarray]]:
        batches = in_batches(map_in_order(read, paths), segmenter.batch_size)
        for films, found in one_ahead(map(start, batches)):
            yield from zip(films, np.asarray(found) > THRESHOLD, strict=False)

    def start(batch: Sequence[tuple[Film, np.ndarray]]) -> tuple[Sequence[Film], jax.Array]:
        films, inputs = zip(*batch, strict=True)
        return films, segmenter.start(np.stack(inputs))

    def box(film_and_mask: tuple[Film, np.ndarray]) -> Film:
        film, mask = film_and_mask
        if film.problem is not None:
            return film
        return dataclasses.replace(film, region=lung_boxes.lung_box(mask, film.size, postprocessing))

    return map_in_order(box, masks())


def make_box_table(
    segmenter: Segmenter,
    radiographs: Sequence[Path],
    output: str | Path,
    postprocessing: PostProcessing,
    skip_bad_files: bool = False,
) -> list[BoxRow]:
    """Writes the lung box of every radiograph to a table (B.2.2), going on where an earlier call was stopped.

    Rows are collected in `<output>.partial`, which survives being killed at any moment; the table itself appears at the
    end, and is the same however often the work was interrupted.

    Args:
      segmenter: the lung region generator.
      radiographs: files with different names; the table is in their order.
      output: the table. What could not be read is listed beside it, in `<output's stem>_skipped.txt`, and what it was
        made from is recorded (`box_record`).
      postprocessing: the numbers of B.2.2.
      skip_bad_files: leave out, and list, files that cannot be read, instead of stopping at the first.

    Returns:
      the rows.

    Raises:
      UserError: for a file that cannot be read, no file that can, a partial table begun with another checkpoint or
        other post-processing, or while another command makes the same table.
    """
    output = Path(output)
    partial = output.with_name(output.name + ".partial")
    made_by = {"checkpoint": segmenter.digest, "postprocessing": dataclasses.asdict(postprocessing)}
    with Journal(partial, made_by) as journal:
        done = {name: BoxRow(**journal[name]) for name in journal}
        looked_at: dict[Path, sources.Source] = {}
        problems = _box_missing(segmenter, radiographs, postprocessing, skip_bad_files, journal, done, looked_at)
        if len(problems) == len(radiographs):
            raise UserError(f"none of the {len(problems):,} radiographs can be read; the first: {problems[0]}")
        rows = [done[path.name] for path in radiographs if path.name in done]
        _list_problems(output.with_name(f"{output.stem}_skipped.txt"), problems)
        # Boxed by earlier calls.
        earlier = [path for path in radiographs if path.name in done and path not in looked_at]
        looked_at |= zip(earlier, map_in_order(sources.look_at, earlier), strict=True)
        lung_boxes.write_box_table(output, rows)
        films = {path.name: looked_at[path] for path in radiographs if path in looked_at}
        box_record.write(output, segmenter.digest, postprocessing, films)
        journal.delete()
    return rows


def _box_missing(
    segmenter: Segmenter,
    radiographs: Sequence[Path],
    postprocessing: PostProcessing,
    skip_bad_files: bool,
    journal: Journal,
    done: dict[str, BoxRow],
    looked_at: dict[Path, sources.Source],
) -> list[str]:
    """Adds the rows that are missing to the journal and to `done`, and their films as they were read to `looked_at`.

    Returns:
      what is wrong with films left out.
    """
    # Whole batches, as an uninterrupted run forms them: a film's neighbours in its batch are always the same.
    missing = [
        batch for batch in in_batches(radiographs, segmenter.batch_size) if any(p.name not in done for p in batch)
    ]
    paths = list(itertools.chain.from_iterable(missing))
    if done:
        print(f"going on: {len(radiographs) - len(paths):,} of {len(radiographs):,} radiographs are done", flush=True)
    problems = []
    with progress.bar(
        what="lung boxes", unit="image", total=len(radiographs), initial=len(radiographs) - len(paths)
    ) as bar:
        for film in segment_films(segmenter, paths, postprocessing):
            if film.source is not None:
                looked_at[film.path] = film.source
            if film.problem is None:
                done[film.path.name] = _row(film, segmenter.digest)
                journal.write(film.path.name, dataclasses.asdict(done[film.path.name]))
            elif skip_bad_files:
                problems.append(film.problem)
            else:
                raise UserError(
                    f"{film.problem}. Mend or remove the file, or leave such files out with --skip_bad_files "
                    "(sdfn_jax.main: --config.data.skip_bad_files=True); the same command then goes on from here."
                )
            bar.update()
    return problems


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: a folder of radiographs -> the box table, and how often each rule fired."""
    parser = argparse.ArgumentParser(prog="python -m sdfn_jax.lrg", description=main.__doc__)
    parser.add_argument("radiographs", metavar="IMAGES", help="a folder of radiographs, searched with all below it")
    parser.add_argument("--checkpoint", required=True, help="working directory of a trained LRG, such as runs/lrg")
    parser.add_argument("--output", required=True, help="the box table to write, such as lung_boxes.csv")
    parser.add_argument("--batch_size", type=positive, default=8, help="films the network takes at a time (default: 8)")
    parser.add_argument("--skip_bad_files", action="store_true", help="leave out, and list, files that cannot be read")
    flags = parser.parse_args(arguments)
    found = find_radiographs(flags.radiographs)
    jit_cache.use_cache()
    segmenter = Segmenter.load(flags.checkpoint, flags.batch_size)
    print(f"{len(found.films):,} radiographs in {flags.radiographs}, checkpoint {segmenter.digest[:12]}", flush=True)
    if segmenter.drawings:
        print(f"NOTE: {DRAWINGS}", flush=True)
    rows = make_box_table(segmenter, found.films, flags.output, segmenter.postprocessing, flags.skip_bad_files)
    print(f"{flags.output}: {len(rows):,} lung boxes\n\n{lung_boxes.rule_counts(rows)}")
    report_left_out(found, flags.output)


def _row(film: Film, digest: str) -> BoxRow:
    height, width = film.size
    # Four decimals, as the table keeps: a row is the same whether it comes from here or from a partial table.
    area = round(film.region.lung_area, 4)
    return BoxRow(film.path.name, width, height, *film.region.box, film.region.rule, area, digest)


def _list_problems(path: Path, problems: Sequence[str]) -> None:
    if not problems:
        path.unlink(missing_ok=True)  # of an earlier run
        return
    with appears_when_complete(path) as unfinished:
        unfinished.write_text("".join(f"{printable(problem)}\n" for problem in problems), encoding="utf-8")
    print(f"{len(problems):,} files could not be read and are left out; see {path}")


if __name__ == "__main__":
    run_command(main, "the same command resumes from here")
