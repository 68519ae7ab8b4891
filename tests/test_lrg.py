"""The lung region generator at work, on drawn films and tiny networks."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import other_process
import pytest
from flax import linen as nn
from PIL import Image
from skimage import exposure

from sdfn_jax import lrg as lrg_command
from sdfn_jax.core import checkpoint, sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs import box_record, box_table, contact_sheet, contrast, make_box_table
from sdfn_jax.lungs import segmenter as lungs_segmenter
from sdfn_jax.lungs.finder import LungFinder
from sdfn_jax.lungs.lung_boxes import PostProcessing, lung_box
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.unet import UNet
from sdfn_jax.radiographs import pixels, reader

SIDE = 32
POSTPROCESSING = PostProcessing()


class DarkIsLung(nn.Module):
    """Finds "lung" wherever a film is darker than the mean: what it answers is known beforehand."""

    @nn.compact
    def __call__(self, x):
        return -20 * x[..., 0]


def dark_is_lung(batch_size: int = 4, digest: str = "c0ffee") -> lungs_segmenter.Segmenter:
    return lungs_segmenter.Segmenter(DarkIsLung(), {}, 0.5, 0.25, "equalize", SIDE, digest, POSTPROCESSING, batch_size)


def tiny_unet(batch_size: int = 4) -> lungs_segmenter.Segmenter:
    model = UNet(filters=(2, 2, 3))
    variables = initial_variables(model, 0, jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), np.float32))
    return lungs_segmenter.Segmenter(
        model, variables, 0.5, 0.25, "equalize", SIDE, "c0ffee", POSTPROCESSING, batch_size
    )


def noise(seed: int, shape: tuple[int, ...] = (SIDE, SIDE)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def drawing(*dark: tuple[int, int, int, int], size: tuple[int, int] = (4 * SIDE, 2 * SIDE)) -> np.ndarray:
    """A bright film with dark boxes (left, top, right, bottom), in pixels of the 32 x 32 network."""
    film = np.full(size, 200, np.uint8)
    down, across = size[0] // SIDE, size[1] // SIDE
    for left, top, right, bottom in dark:
        film[top * down : bottom * down, left * across : right * across] = 20
    return film


LUNGS = (4, 6, 12, 24), (20, 6, 28, 24)


def write_films(folder: Path, count: int) -> list[Path]:
    """Drawings with two lungs, one lung, three dark regions and none, in turn; and their paths in order."""
    folder.mkdir()
    kinds = (LUNGS, LUNGS[:1], (*LUNGS, (0, 26, 8, 32)), ())
    for index in range(count):
        size = (SIDE * (2 + index % 3), SIDE * (3 + index % 2))
        Image.fromarray(drawing(*kinds[index % 4], size=size)).save(folder / f"film_{index:03d}.png")
    return sorted(folder.iterdir())


def test_probabilities_are_the_mean_of_the_film_and_its_mirror_image_if_asked_for():
    film = noise(3)
    one_way, both_ways = tiny_unet(), dataclasses.replace(tiny_unet(), mirrored_too=True)
    seen, mirrored = one_way.probabilities([film, np.ascontiguousarray(film[:, ::-1])])
    np.testing.assert_allclose(both_ways.probabilities([film])[0], (seen + mirrored[:, ::-1]) / 2, atol=1e-6)
    assert not np.allclose(seen, mirrored[:, ::-1], atol=1e-3)


class TestContrast:
    def test_equalize_is_that_of_scikit_image(self):
        for film in (noise(0), noise(1) // 4 + 90, drawing(*LUNGS)):
            found = contrast.contrast(film, "equalize")
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, exposure.equalize_hist(film), atol=1e-7)

    @pytest.mark.parametrize("margin", [0, 3, 40, 255])
    def test_clipped_sees_the_chest_as_it_would_without_a_margin(self, margin):
        rng = np.random.default_rng(0)
        chest = np.clip(rng.normal(128, 40, (160, 160)), 1, 254).astype(np.uint8)
        film = np.pad(chest, 48, constant_values=margin)
        alone, beside = (contrast.contrast(image, "equalize_clipped") for image in (chest, film))
        inside = np.s_[48:-48, 48:-48]
        assert np.abs(beside[inside] - alone).max() < 0.02
        # 61 % of that film is margin; the equalisation of [21] squeezes or shifts the chest by as much.
        assert np.abs(contrast.contrast(film, "equalize")[inside] - contrast.contrast(chest, "equalize")).max() > 0.3

    @pytest.mark.parametrize("method", contrast.CONTRASTS)
    def test_keeps_the_order_of_greys_within_0_and_1(self, method):
        film = noise(2)
        found = contrast.contrast(film, method)
        assert (found.min() >= 0, found.max()) == (True, 1.0)
        order = np.argsort(film, axis=None, kind="stable")
        assert (np.diff(found.ravel()[order]) >= 0).all()

    @pytest.mark.parametrize("method", contrast.CONTRASTS)
    @pytest.mark.parametrize("grey", [0, 128, 255])
    def test_a_blank_film_is_finite(self, method, grey):
        assert np.isfinite(contrast.contrast(np.full((8, 8), grey, np.uint8), method)).all()

    def test_an_unknown_method_is_refused(self):
        with pytest.raises(ValueError, match="'equalise'; expected one of equalize, equalize_clipped"):
            contrast.contrast(noise(0), "equalise")


class TestSegmenter:
    def test_is_the_network_on_normalised_films(self):
        segmenter = tiny_unet()
        films = noise(0, (3, SIDE, SIDE))
        inputs = np.stack([exposure.equalize_hist(film) for film in films])
        logits = jax.jit(segmenter.model.apply)(
            segmenter.variables, ((inputs - 0.5) / 0.25)[..., None].astype(np.float32)
        )
        found = segmenter.probabilities(films)
        assert (found.shape, found.dtype) == ((3, SIDE, SIDE), np.float32)
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-5)

    def test_films_may_have_any_usual_form(self):
        segmenter, films = tiny_unet(), noise(0, (3, SIDE, SIDE))
        films[:, 0, 0] = 255
        forms = [films[0] / 255, np.stack([films[1]] * 3, axis=-1), films[2].astype(np.uint16) * 257]
        np.testing.assert_array_equal(segmenter.probabilities(forms), segmenter.probabilities(films))

    def test_what_is_no_film_or_of_another_size_is_named(self):
        films = noise(0, (3, SIDE, SIDE))
        with pytest.raises(ValueError, match=r"films\[0\]: pixels outside the range of 16-bit numbers"):
            tiny_unet().probabilities(films - 128.0)
        with pytest.raises(ValueError, match=rf"films\[0\]: an array of shape \({SIDE},\)"):
            tiny_unet().probabilities(films[0])
        with pytest.raises(ValueError, match=rf"films\[1\] has {SIDE - 1} x {SIDE} pixels, where this network reads"):
            tiny_unet().probabilities([films[0], films[1, 1:]])

    @pytest.mark.parametrize("count", [1, 4, 9])
    def test_a_film_gets_the_same_alone_and_in_any_company(self, count):
        films = noise(0, (9, SIDE, SIDE))
        segmenter = tiny_unet()
        alone = [segmenter.probabilities(films[i : i + 1])[0] for i in range(count)]
        np.testing.assert_allclose(segmenter.probabilities(films[:count]), np.stack(alone), atol=1e-6)

    def test_compiles_one_shape(self):
        segmenter = tiny_unet()
        for count in (1, 3, 4, 9):
            segmenter.probabilities(noise(0, (count, SIDE, SIDE)))
        assert segmenter._network.func._cache_size() == 1

    def test_loads_a_checkpoint(self, tmp_path):
        trained = tiny_unet()
        save_checkpoint(tmp_path)
        loaded = lungs_segmenter.Segmenter.load(tmp_path, batch_size=3)
        films = noise(0, (2, SIDE, SIDE))
        np.testing.assert_allclose(loaded.probabilities(films), trained.probabilities(films), atol=1e-6)
        assert loaded.digest == checkpoint.best_metadata(tmp_path)["digest"]
        assert loaded.postprocessing == PostProcessing(minimum_area=0.01)

    def test_another_stage_is_refused(self, tmp_path):
        save_checkpoint(tmp_path, stage="entire")
        with pytest.raises(UserError, match="stage 'entire'"):
            lungs_segmenter.Segmenter.load(tmp_path)


def save_checkpoint(workdir: Path, stage: str = "lrg", drawings: bool = False) -> None:
    """Saves the tiny U-Net as the LRG's trainer does."""
    segmenter = tiny_unet()
    config = {
        "stage": stage,
        "model": {"filters": segmenter.model.filters},
        "contrast": segmenter.contrast,
        "data": {"size": SIDE},
        "postprocessing": {"minimum_area": 0.01},
    }
    normalisation = {"mean": segmenter.mean, "std": segmenter.std}
    metadata = {"config": config, "normalisation": normalisation, "drawings": drawings}
    checkpoint.save_best(workdir, 1, segmenter.variables, metadata)


class TestFindRadiographs:
    def test_searches_all_below_and_sorts_by_name(self, tmp_path):
        for name in ("images_002/images/b.png", "images_001/images/c.PNG", "a.jpg", "deep/d.IMG"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "Data_Entry_2017.csv").touch()
        (tmp_path / "._a.png").touch()  # what macOS leaves on foreign disks
        assert [path.name for path in make_box_table.find_radiographs(tmp_path).films] == [
            "a.jpg",
            "b.png",
            "c.PNG",
            "d.IMG",
        ]

    def test_follows_links_to_folders(self, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "disk" / "a.png").touch()
        (tmp_path / "films").mkdir()
        (tmp_path / "films" / "images_001").symlink_to(tmp_path / "disk")
        assert make_box_table.find_radiographs(tmp_path / "films").films == [
            tmp_path / "films" / "images_001" / "a.png"
        ]

    def test_two_of_one_name_are_refused(self, tmp_path):
        for folder in ("CXR_png", "ManualMask"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "a.png").write_text(folder)
        with pytest.raises(UserError, match=r"named a.png: .*CXR_png/a.png and .*ManualMask/a.png"):
            make_box_table.find_radiographs(tmp_path)

    def test_none_says_where_it_looked(self, tmp_path):
        (tmp_path / "list.txt").touch()
        with pytest.raises(UserError, match=f"no radiograph in {tmp_path}"):
            make_box_table.find_radiographs(tmp_path)

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(UserError, match="nowhere is not a folder"):
            make_box_table.find_radiographs(tmp_path / "nowhere")


class TestBoxTable:
    def test_boxes_of_synthetic_masks_are_known(self, tmp_path, monkeypatch):
        # Equalisation would count the pixels that resizing blends at the edges among the dark ones.
        monkeypatch.setattr(contrast, "contrast", lambda film, method: film / np.float32(255))
        films = write_films(tmp_path / "films", 4)
        table = tmp_path / "made" / "boxes.csv"
        rows = make_box_table.make_box_table(dark_is_lung(), films, table, POSTPROCESSING)
        assert list(box_table.read_box_table(table).values()) == rows
        # LUNGS is rows 6-24 and columns 4-28 of 32; margins of 15 and 20 are 1.875 and 2.5 of 32.
        both = (2.125, 4.125, 29.875, 26.5)
        assert [row.rule for row in rows] == ["none", "mirror", "nearest_two", "whole_image"]
        for row, (height, width) in zip(rows, [(64, 96), (96, 128), (128, 96), (64, 128)], strict=True):
            assert (row.height, row.width, row.checkpoint) == (height, width, "c0ffee")
            if row.rule == "whole_image":
                assert (row.box, row.lung_area) == ((0, 0, width, height), 0.0)
                continue
            left, right = (round_out(np.array(both[::2]), width / SIDE)).tolist()
            top, bottom = (round_out(np.array(both[1::2]), height / SIDE)).tolist()
            assert row.box == (left, top, right, bottom)
        assert [row.lung_area for row in rows[:3]] == [0.2812, 0.1406, 0.3281]  # 288, 144, 336 of 1024 pixels
        record = ["boxes_made_from.json", "boxes_sources.csv"]
        assert sorted(path.name for path in table.parent.iterdir()) == ["boxes.csv", *record]
        found = box_record.compare(table, POSTPROCESSING, {path.name: path for path in films})
        assert found == box_record.BoxTableState(True, False, ())

    def test_equals_boxing_film_by_film(self, tmp_path):
        (tmp_path / "films").mkdir()
        for index in range(11):
            Image.fromarray(noise(index, (50, 40))).save(tmp_path / "films" / f"{index}.png")
        films = make_box_table.find_radiographs(tmp_path / "films").films
        segmenter = tiny_unet()
        rows = make_box_table.make_box_table(segmenter, films, tmp_path / "boxes.csv", POSTPROCESSING)
        for film, row in zip(films, rows, strict=True):
            resized = pixels.resize(reader.read_radiograph(film), (SIDE, SIDE))
            region = lung_box(segmenter.probabilities(resized[None])[0] > 0.5, (50, 40), POSTPROCESSING)
            assert (row.image, row.box, row.rule) == (film.name, region.box, region.rule)
            assert row.lung_area == pytest.approx(region.lung_area, abs=5e-5)

    @pytest.mark.parametrize("torn", [0, 1, 7, 30])
    def test_goes_on_after_a_kill_and_ends_with_the_same_table(self, tmp_path, monkeypatch, torn):
        films = write_films(tmp_path / "films", 22)
        make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "whole.csv", POSTPROCESSING)

        reads = Counting(reader.read_radiograph)
        monkeypatch.setattr(reader, "read_radiograph", reads)
        row_of = Counting(make_box_table._row, limit=10)
        monkeypatch.setattr(make_box_table, "_row", row_of)
        with pytest.raises(Killed):
            make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)
        partial = tmp_path / "boxes.csv.partial"
        content = partial.read_bytes()
        assert content.count(b"\n") == 1 + 10
        partial.write_bytes(content[: len(content) - torn])
        assert not (tmp_path / "boxes.csv").exists()

        row_of.limit += 2
        with pytest.raises(Killed):  # and once more, with rows behind the torn one
            make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)

        row_of.limit = None
        reads.calls = 0
        make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)
        assert (tmp_path / "boxes.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
        assert reads.calls == 22 - 8  # two whole batches of four were done
        assert not partial.exists()

    def test_films_that_came_or_went_meanwhile(self, tmp_path, monkeypatch):
        films = write_films(tmp_path / "films", 12)
        monkeypatch.setattr(make_box_table, "_row", Counting(make_box_table._row, limit=6))
        with pytest.raises(Killed):
            make_box_table.make_box_table(dark_is_lung(), films[:10], tmp_path / "boxes.csv", POSTPROCESSING)
        monkeypatch.undo()
        rows = make_box_table.make_box_table(dark_is_lung(), films[2:], tmp_path / "boxes.csv", POSTPROCESSING)
        assert [row.image for row in rows] == [film.name for film in films[2:]]

    def test_a_film_replaced_meanwhile_is_boxed_again(self, tmp_path, monkeypatch):
        films = write_films(tmp_path / "films", 8)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(make_box_table, "_row", Counting(make_box_table._row, limit=6))
            make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)
        Image.fromarray(drawing((8, 8, 14, 20), (18, 8, 26, 20))).save(films[1])
        make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)
        make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "whole.csv", POSTPROCESSING)
        assert (tmp_path / "boxes.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
        record = box_record.compare(tmp_path / "boxes.csv", POSTPROCESSING, {film.name: film for film in films})
        assert record.differences == ()

    @pytest.mark.parametrize("other", ["checkpoint", "post-processing"])
    def test_a_partial_table_of_another_making_is_not_taken_up(self, tmp_path, monkeypatch, other):
        films = write_films(tmp_path / "films", 8)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(make_box_table, "_row", Counting(make_box_table._row, limit=5))
            make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)
        segmenter = dark_is_lung(digest="beef") if other == "checkpoint" else dark_is_lung()
        postprocessing = PostProcessing(margin_top=3) if other == "post-processing" else POSTPROCESSING
        with pytest.raises(UserError, match=r"boxes.csv.partial was started with other networks or settings"):
            make_box_table.make_box_table(segmenter, films, tmp_path / "boxes.csv", postprocessing)

    def test_a_damaged_line_of_a_partial_table_is_boxed_again_and_that_is_said(self, tmp_path, monkeypatch, capsys):
        films = write_films(tmp_path / "films", 8)
        whole = make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "whole.csv", POSTPROCESSING)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(make_box_table, "_row", Counting(make_box_table._row, limit=5))
            make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)
        partial = tmp_path / "boxes.csv.partial"
        text = partial.read_text()
        partial.write_text(text.replace('"rule": "none"', '"rule": "mirror"', 1))
        assert partial.read_text() != text
        assert make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING) == whole
        assert f"{partial}: 1 of its lines are damaged; their work is repeated" in capsys.readouterr().err

    def test_an_unreadable_file_stops_it_by_name_and_what_is_done_stays_done(self, tmp_path, monkeypatch):
        films = write_films(tmp_path / "films", 10)
        good = films[6].read_bytes()
        films[6].write_bytes(good[:60])
        with pytest.raises(UserError, match=r"film_006.png: cannot be decoded.*--skip_bad_files"):
            make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)
        films[6].write_bytes(good)
        reads = Counting(reader.read_radiograph)
        monkeypatch.setattr(reader, "read_radiograph", reads)
        assert len(make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)) == 10
        assert reads.calls == 6

    def test_unreadable_files_are_listed_and_left_out_when_asked(self, tmp_path, capsys):
        films = write_films(tmp_path / "films", 10)
        whole = make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)
        films[2].write_bytes(b"")
        films[5].write_bytes(films[5].read_bytes()[:60])
        rows = make_box_table.make_box_table(
            dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING, skip_bad_files=True
        )
        assert rows == [row for index, row in enumerate(whole) if index not in (2, 5)]
        listed = (tmp_path / "boxes_skipped.txt").read_text().splitlines()
        assert [line.partition(":")[0] for line in listed] == [str(films[2]), str(films[5])]
        assert "2 files could not be read and are left out; see" in capsys.readouterr().out

    def test_a_list_of_skipped_files_does_not_outlive_its_table(self, tmp_path):
        films = write_films(tmp_path / "films", 4)
        (tmp_path / "boxes_skipped.txt").write_text("of an earlier run\n")
        make_box_table.make_box_table(dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING)
        assert not (tmp_path / "boxes_skipped.txt").exists()

    def test_no_readable_film_at_all_is_an_error(self, tmp_path):
        films = write_films(tmp_path / "films", 3)
        for film in films:
            film.write_bytes(b"")
        with pytest.raises(UserError, match="none of the 3 radiographs can be read; the first: .*film_000.png"):
            make_box_table.make_box_table(
                dark_is_lung(), films, tmp_path / "boxes.csv", POSTPROCESSING, skip_bad_files=True
            )
        assert not (tmp_path / "boxes.csv").exists()


class Killed(BaseException):
    pass


class Counting:
    """Calls a function, counting; after `limit` calls the process dies, as far as the caller can tell."""

    def __init__(self, function, limit=None):
        self.function, self.limit, self.calls = function, limit, 0

    def __call__(self, *arguments):
        if self.calls == self.limit:
            raise Killed
        self.calls += 1
        return self.function(*arguments)


def round_out(interval: np.ndarray, scale: float) -> np.ndarray:
    """(start, stop) scaled, and rounded away from each other."""
    return np.array([np.floor(interval[0] * scale), np.ceil(interval[1] * scale)], int)


class TestCommand:
    def test_writes_the_table_and_prints_the_rules(self, tmp_path, capsys):
        save_checkpoint(tmp_path / "lrg")
        write_films(tmp_path / "films", 5)
        lrg_command.main(
            [str(tmp_path / "films"), f"--checkpoint={tmp_path / 'lrg'}", f"--output={tmp_path / 'boxes.csv'}"]
        )
        printed = capsys.readouterr().out
        assert "5 radiographs in" in printed
        assert "95.84%" in printed
        table = box_table.read_box_table(tmp_path / "boxes.csv")
        assert list(table) == [f"film_{index:03d}.png" for index in range(5)]
        assert {row.checkpoint for row in table.values()} == {checkpoint.best_metadata(tmp_path / "lrg")["digest"]}

    def test_writes_masks_and_a_sheet_of_the_least_certain(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(contact_sheet, "SHEET_FILMS", 2)
        save_checkpoint(tmp_path / "lrg")
        films = write_films(tmp_path / "films", 3)
        command = [str(tmp_path / "films"), f"--checkpoint={tmp_path / 'lrg'}", f"--output={tmp_path / 'boxes.csv'}"]
        lrg_command.main([*command, f"--masks={tmp_path / 'masks'}"])
        assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [path.name for path in films]
        for path, lungs in zip(films, LungFinder.load(tmp_path / "lrg")(films), strict=True):
            mask = np.asarray(Image.open(tmp_path / "masks" / path.name))
            np.testing.assert_array_equal(mask, lungs.mask * np.uint8(255))
        assert "boxes.png: the 2 least certain, to look at" in capsys.readouterr().out
        with Image.open(tmp_path / "boxes.png") as sheet:
            assert sheet.width == 2 * 262 + 6

    def test_two_films_that_would_have_one_mask_are_refused(self, tmp_path):
        save_checkpoint(tmp_path / "lrg")
        (film,) = write_films(tmp_path / "films", 1)
        Image.open(film).save(film.with_suffix(".tif"))
        with pytest.raises(
            UserError, match=r"film_000\.(png|tif) and .* would have one mask, film_000.png; rename one"
        ):
            lrg_command.main(
                [
                    str(tmp_path / "films"),
                    f"--checkpoint={tmp_path / 'lrg'}",
                    f"--output={tmp_path / 'boxes.csv'}",
                    f"--masks={tmp_path / 'masks'}",
                ]
            )
        assert not (tmp_path / "boxes.csv").exists()

    @pytest.mark.parametrize("drawings", [True, False])
    def test_a_network_that_was_trained_on_synthetic_radiographs_says_so(self, tmp_path, capsys, drawings):
        save_checkpoint(tmp_path / "lrg", drawings=drawings)
        write_films(tmp_path / "films", 1)
        lrg_command.main(
            [str(tmp_path / "films"), f"--checkpoint={tmp_path / 'lrg'}", f"--output={tmp_path / 'boxes.csv'}"]
        )
        assert (
            "trained on synthetic radiographs: its boxes on films of patients mean nothing" in capsys.readouterr().out
        ) == drawings

    def test_refuses_to_run_untrained(self, tmp_path):
        write_films(tmp_path / "films", 1)
        with pytest.raises(UserError, match="no trained checkpoint"):
            lrg_command.main(
                [str(tmp_path / "films"), f"--checkpoint={tmp_path}", f"--output={tmp_path / 'boxes.csv'}"]
            )

    def test_of_two_started_together_one_writes_the_table_and_the_other_says_so(self, tmp_path):
        save_checkpoint(tmp_path / "lrg")
        write_films(tmp_path / "films", 40)
        output = tmp_path / "boxes.csv"
        command = [sys.executable, "-m", "sdfn_jax.lrg", tmp_path / "films", f"--checkpoint={tmp_path / 'lrg'}"]
        command += [f"--output={output}", "--batch_size=2"]
        with other_process.stopped_when(tmp_path / "boxes.csv.partial", command) as first:
            second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 2
        assert "boxes.csv.partial is being written by another command" in second.stderr
        assert "Traceback" not in second.stderr
        assert first.returncode == 0
        assert len(box_table.read_box_table(output)) == 40

    def test_killed_twice_it_ends_with_the_same_table(self, tmp_path):
        """kill -9 of the real command, while it writes."""
        save_checkpoint(tmp_path / "lrg")
        write_films(tmp_path / "films", 600)
        output, partial = tmp_path / "boxes.csv", tmp_path / "boxes.csv.partial"
        command = [sys.executable, "-m", "sdfn_jax.lrg", tmp_path / "films", f"--checkpoint={tmp_path / 'lrg'}"]
        command += [f"--output={output}", "--batch_size=2"]

        def rows() -> int:
            return partial.read_bytes().count(b"\n") - 1 if partial.exists() else 0

        for wanted in (20, 200):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                while rows() < wanted and process.poll() is None:
                    time.sleep(0.001)
                process.kill()
            assert process.returncode == -signal.SIGKILL
            assert wanted <= rows() < 600
        # The second run did again what the first had of an unfinished batch: count films, not lines.
        done = len({sealed.read_line(line)["key"] for line in partial.read_text().split("\n")[1:-1]})
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (
            f"resuming: {done // 2 * 2} of 600" in finished.stdout
        )  # it began with the whole batches of its predecessors
        segmenter = lungs_segmenter.Segmenter.load(tmp_path / "lrg", batch_size=2)
        films = make_box_table.find_radiographs(tmp_path / "films").films
        make_box_table.make_box_table(segmenter, films, tmp_path / "uninterrupted.csv", segmenter.postprocessing)
        assert output.read_bytes() == (tmp_path / "uninterrupted.csv").read_bytes()
        assert not partial.exists()
