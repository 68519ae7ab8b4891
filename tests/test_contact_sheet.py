"""Pages of lung boxes, looked at by their colours."""

import numpy as np
import pytest
from PIL import Image

from sdfn_jax.lungs import contact_sheet, region_page
from sdfn_jax.lungs.finder import Lungs
from sdfn_jax.lungs.lung_boxes import PostProcessing, lung_box

LUNG, DROPPED, MIRRORED, BOX = (0, 230, 120), (255, 70, 70), (255, 225, 0), (80, 190, 255)
LEFT, RIGHT, SMALL = (30, 40, 110, 200), (140, 40, 220, 200), (150, 100, 200, 180)


def film(*lungs: tuple[int, int, int, int], size: tuple[int, int] = (256, 256), name: str = "film.png") -> Lungs:
    mask = np.zeros((256, 256), bool)
    for left, top, right, bottom in lungs:
        mask[top:bottom, left:right] = True
    grey, probabilities = np.full((256, 256), 90, np.uint8), mask.astype(np.float32)
    return Lungs(name, size, grey, probabilities, lung_box(mask, size, PostProcessing()), ())


def drawn(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """Where a colour occurs: (left, top, right, bottom)."""
    return Image.fromarray((np.asarray(picture) == colour).all(axis=-1)).getbbox()


class TestFilmPicture:
    def test_outlines_and_box_lie_where_mask_and_box_are(self):
        picture = contact_sheet.film_picture(film(LEFT, RIGHT))
        assert drawn(picture, LUNG) == (30, 40, 220, 200)
        assert drawn(picture, BOX) == (15, 25, 235, 220)
        assert (drawn(picture, DROPPED), drawn(picture, MIRRORED)) == (None, None)

    def test_only_the_outline_is_drawn(self):
        pixels = np.asarray(contact_sheet.film_picture(film(LEFT, RIGHT)))
        assert (pixels == LUNG).all(axis=-1).sum() == 2 * (2 * 80 + 2 * 158)
        assert pixels[100, 70].tolist() == [90, 90, 90]

    def test_a_dropped_region_and_a_mirror_image_have_their_colours(self):
        picture = contact_sheet.film_picture(film(LEFT, SMALL))
        assert drawn(picture, LUNG) == LEFT
        assert drawn(picture, DROPPED) == SMALL
        assert drawn(picture, MIRRORED) == (256 - 110, 40, 256 - 30, 200)

    @pytest.mark.parametrize("size", [(1024, 512), (4020, 4892), (300, 300)])
    def test_keeps_the_proportions_of_the_film(self, size):
        picture = contact_sheet.film_picture(film(LEFT, RIGHT, size=size))
        height, width = size
        scale = 256 / max(size)
        assert picture.size == (round(width * scale), round(height * scale))
        expected = np.array([15 * width, 25 * height, 235 * width, 220 * height]) / 256 * scale
        np.testing.assert_allclose(drawn(picture, BOX), expected, atol=2)

    def test_the_box_of_a_whole_image_is_seen(self):
        assert drawn(contact_sheet.film_picture(film()), BOX) == (0, 0, 256, 256)


class TestPages:
    def test_a_page_is_as_large_as_its_films_need(self, tmp_path):
        shapes = []
        for count in (27, 2):
            contact_sheet.lung_box_page([film(LEFT, RIGHT)] * count, tmp_path / "page.png", drawings=False)
            with Image.open(tmp_path / "page.png") as image:
                shapes.append(image.size)
        assert shapes[0][0] > 9 * 256 > 2 * 256 + 300 > shapes[1][0] > 2 * 256
        assert shapes[0][1] > 3 * 256 > 300 + 34 > shapes[1][1] > 256 + 34

    def test_pages_of_synthetic_films_say_so(self, tmp_path):
        for drawings in (True, False):
            contact_sheet.lung_box_page([film(LEFT, RIGHT)] * 3, tmp_path / f"{drawings}.png", drawings=drawings)
        pages = [np.asarray(Image.open(tmp_path / f"{drawings}.png")).astype(int) for drawings in (True, False)]
        rows = np.flatnonzero((pages[0] != pages[1]).any(axis=(1, 2)))
        assert rows.size > 5 and rows.max() < 30  # a line of text at the top

    def test_name_and_rule_are_written(self, tmp_path):
        for name, lungs in (("a", (LEFT, RIGHT)), ("b", (LEFT, RIGHT)), ("a", (LEFT,))):
            contact_sheet.lung_box_page([film(*lungs, name=name)], tmp_path / f"{name}{len(lungs)}.png", drawings=False)
        captions = {}
        for path in tmp_path.iterdir():
            with Image.open(path) as image:
                captions[path.stem] = np.asarray(image)[-40:]
        assert (captions["a2"] != captions["b2"]).any()  # the name
        assert not (captions["a2"] == MIRRORED).all(axis=-1).any()
        assert (captions["a1"] == MIRRORED).all(axis=-1).any()  # a rule stands out in yellow

    def test_a_long_name_does_not_run_into_the_next_film(self, tmp_path):
        """Two films side by side: the second one's caption is the same whatever the first is called."""
        pictures = []
        for name in ("a.png", "a" * 300 + ".png"):
            contact_sheet.lung_box_page(
                [film(LEFT, RIGHT, name=name), film(LEFT, RIGHT)], tmp_path / "page.png", drawings=False
            )
            with Image.open(tmp_path / "page.png") as image:
                pictures.append(np.asarray(image)[:, 6 + 256 + 6 :])
        np.testing.assert_array_equal(*pictures)


class TestRegionPage:
    @pytest.mark.parametrize(
        ("lungs", "size", "expected"),
        [
            ((LEFT, RIGHT), (256, 256), (30, 40, 220, 200)),
            ((LEFT, RIGHT), (512, 1024), (120, 80, 880, 400)),
            ((LEFT, SMALL), (256, 256), (30, 40, 226, 200)),  # the left lung and its mirror image
            ((), (256, 256), None),  # the whole image was taken
        ],
    )
    def test_the_box_before_it_is_widened_holds_the_lungs_and_no_more(self, lungs, size, expected):
        assert region_page.before_widening(film(*lungs, size=size).region, size) == expected

    def test_it_shows_original_boxes_and_the_region_cut_from_the_original(self, tmp_path):
        size = (512, 512)
        radiograph = np.full(size, 40, np.uint8)
        left, top, right, bottom = film(LEFT, RIGHT, size=size).box
        radiograph[top:bottom, left:right] = 200
        region_page.region_page([(film(LEFT, RIGHT, size=size), radiograph)], tmp_path / "page.png", drawings=False)
        with Image.open(tmp_path / "page.png") as page:
            grey = (np.asarray(page) == 200).all(axis=-1)
        parts = [grey[:, 6 + 262 * place : 262 + 262 * place].sum() for place in range(3)]
        width, height = right - left, bottom - top
        assert parts[0] == pytest.approx(width * height / 4, rel=0.03)
        assert parts[1] < 9  # drawn on what the network saw; letters may have a pixel of this grey
        assert parts[2] == 256 * round(256 * height / width)
