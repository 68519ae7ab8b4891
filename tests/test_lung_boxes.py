"""The post-processing of B.2.2 on drawn masks, and the box table."""

import contextlib
import dataclasses

import numpy as np
import pytest
from skimage import morphology

from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs import box_table, lung_boxes
from sdfn_jax.lungs.box_table import BoxRow
from sdfn_jax.lungs.lung_boxes import PostProcessing, lung_box
from sdfn_jax.radiographs import pixels, reader

PAPER = PostProcessing()
SIDE = 256
# Left lungs of the drawings lie in columns 30-110, right ones in 140-220, both in rows 40-200.
LEFT, RIGHT = (30, 40, 110, 200), (140, 40, 220, 200)


def draw(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def on_mask(mask: np.ndarray, parameters: PostProcessing = PAPER) -> lung_boxes.LungRegion:
    """The region in the mask's own pixels."""
    return lung_box(mask, mask.shape, parameters)


def test_defaults_are_the_papers_numbers():
    assert (PAPER.margin_top, PAPER.margin_left, PAPER.margin_right, PAPER.margin_bottom) == (15, 15, 15, 20)
    assert PAPER.small_lung == 1 / 3
    assert PAPER.minimum_area == 0.02


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"minimum_area": 2.0}, "minimum_area is 2.0"),
        ({"margin_top": -1}, "margin_top is -1"),
        ({"margin_left": 1.5}, "1.5"),
    ],
)
def test_impossible_numbers_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PostProcessing(**wrong)


class TestRules:
    def test_two_lungs_need_no_rule(self):
        region = on_mask(draw(LEFT, RIGHT))
        assert region.rule == "none"
        assert region.box == (30 - 15, 40 - 15, 220 + 15, 200 + 20)
        assert region.lung_area == pytest.approx(2 * 80 * 160 / SIDE**2)

    def test_of_three_regions_the_two_nearest_the_centre_stay(self):
        far = (0, 216, 60, 256)
        region = on_mask(draw(LEFT, RIGHT, far))
        assert region.rule == "nearest_two"
        np.testing.assert_array_equal(region.kept, draw(LEFT, RIGHT))
        np.testing.assert_array_equal(region.cleaned, draw(LEFT, RIGHT, far))
        assert region.box == on_mask(draw(LEFT, RIGHT)).box

    def test_nearness_goes_by_centroids_not_by_size(self):
        large, middle, small = (0, 0, 90, 90), (100, 100, 140, 140), (150, 100, 200, 150)
        region = on_mask(draw(large, middle, small))
        np.testing.assert_array_equal(region.kept, draw(middle, small))

    def test_of_two_regions_equally_near_the_larger_stays(self):
        # Concentric with the image's rows, at equal distance left and right; the third lies on the centre.
        centre, larger, smaller = (118, 118, 138, 138), (20, 98, 60, 158), (196, 108, 236, 148)
        mask = draw(centre, larger, smaller)
        parameters = dataclasses.replace(PAPER, minimum_area=0.0, small_lung=0.0)
        for drawn, kept in ((mask, draw(centre, larger)), (mask[:, ::-1], draw(centre, larger)[:, ::-1])):
            np.testing.assert_array_equal(on_mask(drawn, parameters).kept, kept)

    def test_a_small_lung_is_dropped_and_the_other_mirrored(self):
        region = on_mask(draw(LEFT, (150, 100, 200, 180)))  # 4000 of 12800 pixels
        assert region.rule == "drop_small+mirror"
        np.testing.assert_array_equal(region.kept, draw(LEFT))
        assert region.box == (30 - 15, 40 - 15, (SIDE - 30) + 15, 200 + 20)

    def test_a_third_of_the_larger_lung_is_not_small(self):
        assert on_mask(draw((30, 40, 110, 160), (140, 40, 180, 120))).rule == "none"  # 3200 of 9600
        assert on_mask(draw((30, 40, 110, 160), (140, 40, 180, 119))).rule == "drop_small+mirror"

    def test_three_regions_of_which_the_kept_two_are_unequal(self):
        small, far = (120, 110, 160, 150), (196, 0, 256, 60)
        region = on_mask(draw(LEFT, small, far))
        assert region.rule == "nearest_two+drop_small+mirror"
        np.testing.assert_array_equal(region.kept, draw(LEFT))

    @pytest.mark.parametrize("lung", [LEFT, RIGHT, (0, 40, 80, 200), (176, 0, 256, 256)])
    def test_one_lung_alone_is_mirrored_about_the_centre_line(self, lung):
        region = on_mask(draw(lung))
        left, top, right, bottom = lung
        outer = min(left, SIDE - right)
        assert region.rule == "mirror"
        assert region.box == (
            max(outer - 15, 0), max(top - 15, 0), min(SIDE - outer + 15, SIDE), min(bottom + 20, SIDE)
        )  # fmt: skip

    def test_two_lungs_grown_together_keep_every_pixel(self):
        merged = draw((40, 40, 110, 200), (140, 60, 236, 220), (110, 120, 140, 130))
        region = on_mask(merged)
        assert region.rule == "mirror"
        # Symmetric about the centre line: columns 20-236, as far out as the farther lung on both sides.
        assert region.box == (20 - 15, 40 - 15, 236 + 15, 220 + 20)

    def test_lungs_touching_at_a_corner_are_two(self):
        assert on_mask(draw((48, 40, 128, 120), (128, 120, 208, 200))).rule == "none"

    def test_an_empty_mask_gives_the_whole_image(self):
        region = lung_box(draw(), (1000, 800), PAPER)
        assert (region.rule, region.box, region.lung_area) == ("whole_image", (0, 0, 800, 1000), 0.0)

    def test_one_pixel_is_a_speck(self):
        region = lung_box(draw((7, 9, 8, 10)), (1000, 800), PAPER)
        assert (region.rule, region.box, region.lung_area) == ("whole_image", (0, 0, 800, 1000), 0.0)

    def test_one_pixel_that_is_not_cleaned_is_too_small_to_be_lungs(self):
        region = lung_box(draw((7, 9, 8, 10)), (1000, 800), dataclasses.replace(PAPER, minimum_area=0.0))
        assert (region.rule, region.box) == ("mirror+whole_image", (0, 0, 800, 1000))

    @pytest.mark.parametrize(("height", "rule"), [(51, "mirror+whole_image"), (52, "mirror")])
    def test_a_box_lower_than_a_fifth_of_the_image_is_too_small(self, height, rule):
        assert on_mask(draw((20, 100, 120, 100 + height))).rule == rule

    def test_a_full_mask_is_one_region(self):
        assert on_mask(np.ones((SIDE, SIDE), bool)).box == (0, 0, SIDE, SIDE)


class TestClean:
    def test_agrees_with_scikit_image_as_in_21(self):
        """Away from the border, where [21]'s functions also take a corner of background for a hole."""
        rng = np.random.default_rng(0)
        for _ in range(20):
            mask = np.zeros((128, 128), bool)
            for _ in range(8):
                left, top = rng.integers(2, 90, 2)
                width, height = rng.integers(2, 36, 2)
                mask[top : top + height, left : left + width] = rng.random() < 0.7
            limit = 0.02 * mask.size
            large = morphology.remove_small_objects(mask, max_size=int(np.ceil(limit)) - 1, connectivity=1)
            expected = morphology.remove_small_holes(large, max_size=int(np.ceil(limit)) - 1, connectivity=1)
            np.testing.assert_array_equal(lung_boxes.clean(mask, PAPER), expected)

    @pytest.mark.parametrize("lung", [(0, 0, 100, 200), (0, 0, SIDE, SIDE)])
    def test_a_gap_open_to_the_border_is_no_hole(self, lung):
        mask = draw(lung) & ~draw((0, 80, 10, 100))
        np.testing.assert_array_equal(lung_boxes.clean(mask, PAPER), mask)

    def test_the_threshold_is_a_share_of_the_mask(self):
        for side in (64, 256, 512):
            speck = draw((0, 0, side // 8, side // 8), shape=(side, side))  # 1.56 %
            lung = draw((side // 2, 0, side // 2 + side // 4, side // 4), shape=(side, side))  # 6.25 %
            np.testing.assert_array_equal(lung_boxes.clean(speck | lung, PAPER), lung)

    def test_a_region_of_exactly_the_share_stays(self):
        mask = draw((0, 0, 20, 10), shape=(100, 100))
        assert lung_boxes.clean(mask, PAPER).sum() == 200
        mask[0, 0] = False
        assert lung_boxes.clean(mask, PAPER).sum() == 0

    def test_zero_leaves_everything(self):
        mask = np.random.default_rng(0).random((32, 32)) < 0.5
        np.testing.assert_array_equal(lung_boxes.clean(mask, dataclasses.replace(PAPER, minimum_area=0.0)), mask)


class TestScaling:
    def test_height_and_width_are_scaled_separately(self):
        assert lung_box(draw(LEFT, RIGHT), (1024, 512), PAPER).box == (15 * 2, 25 * 4, 235 * 2, 220 * 4)

    def test_borders_between_pixels_are_rounded_outwards(self):
        # 15 and 235 of 256 at 1000 pixels are 58.6 and 917.97; 25 and 220 are 97.7 and 859.4.
        assert lung_box(draw(LEFT, RIGHT), (1000, 1000), PAPER).box == (58, 97, 918, 860)

    def test_margins_keep_their_share_for_another_mask_size(self):
        half = tuple(value // 2 for value in LEFT), tuple(value // 2 for value in RIGHT)
        small = draw(*half, shape=(SIDE // 2, SIDE // 2))
        assert lung_box(small, (1024, 1024), PAPER).box == lung_box(draw(LEFT, RIGHT), (1024, 1024), PAPER).box


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """One to five ellipses."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mask = np.zeros((SIDE, SIDE), bool)
    for _ in range(rng.integers(1, 6)):
        y, x = rng.integers(0, SIDE, 2)
        height, width = rng.integers(8, 80, 2)
        mask |= ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
    return mask


@pytest.mark.parametrize("seed", range(40))
def test_properties_on_random_masks(seed):
    rng = np.random.default_rng(seed)
    mask = random_mask(rng)
    height, width = (int(value) for value in rng.integers(40, 5000, 2))
    region = lung_box(mask, (height, width), PAPER)
    left, top, right, bottom = region.box

    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert not (region.kept & ~region.cleaned).any()
    # The box holds every kept pixel: the pixels of the file that a mask pixel covers, wholly or partly.
    rows, columns = np.nonzero(region.kept)
    if rows.size:
        assert left <= columns.min() * width / SIDE
        assert right >= (columns.max() + 1) * width / SIDE
        assert top <= rows.min() * height / SIDE
        assert bottom >= (rows.max() + 1) * height / SIDE
    # A mirrored film gives the mirrored box by the same rules.
    mirrored = lung_box(mask[:, ::-1], (height, width), PAPER)
    assert mirrored.box == (width - right, top, width - left, bottom)
    assert mirrored.rule == region.rule
    # Cleaning what is clean changes nothing.
    np.testing.assert_array_equal(lung_boxes.clean(region.cleaned, PAPER), region.cleaned)


def test_random_masks_meet_every_rule():
    """The property test above is worth something."""
    rules = {lung_box(random_mask(np.random.default_rng(seed)), (256, 256), PAPER).rule for seed in range(40)}
    assert {name for rule in rules for name in rule.split("+")} >= {"none", "nearest_two", "drop_small", "mirror"}


ROW = BoxRow("a.png", 800, 1000, 10, 20, 700, 900, "drop_small+mirror", 0.2345, "c0ffee")
SURE = dataclasses.replace(ROW, confidence=0.9123, flags="inverted+lung_region_doubtful")


class TestTable:
    @pytest.fixture(autouse=True)
    def nothing_said_yet(self):
        sealed.say.cache_clear()

    def test_comes_back_as_written_and_in_order(self, tmp_path):
        rows = [dataclasses.replace(SURE, image=name) for name in ('b,"1".png', "a.png", "größe.png")]
        box_table.write_box_table(tmp_path / "boxes.csv", rows)
        assert list(box_table.read_box_table(tmp_path / "boxes.csv").items()) == [(row.image, row) for row in rows]
        assert [path.name for path in tmp_path.iterdir()] == ["boxes.csv"]

    def test_its_text(self, tmp_path):
        box_table.write_box_table(tmp_path / "boxes.csv", [ROW, dataclasses.replace(SURE, image="b.png")])
        assert (tmp_path / "boxes.csv").read_bytes() == (
            b"image,width,height,left,top,right,bottom,rule,lung_area,checkpoint,confidence,flags,check\n"
            b"a.png,800,1000,10,20,700,900,drop_small+mirror,0.2345,c0ffee,,,x2148fd4ca85e\n"
            b"b.png,800,1000,10,20,700,900,drop_small+mirror,0.2345,c0ffee,0.9123,inverted+lung_region_doubtful,xb6d0f3564573\n"
        )

    def test_a_table_of_before_there_was_a_confidence_is_read_without_a_word(self, tmp_path, capsys):
        (tmp_path / "boxes.csv").write_text(
            "image,width,height,left,top,right,bottom,rule,lung_area,checkpoint,check\n"
            "a.png,800,1000,10,20,700,900,drop_small+mirror,0.2345,c0ffee,x2148fd4ca85e\n"
        )
        assert box_table.read_box_table(tmp_path / "boxes.csv") == {"a.png": ROW}
        assert capsys.readouterr().err == ""

    def test_names_keep_their_blanks(self, tmp_path, capsys):
        rows = [dataclasses.replace(ROW, image=name) for name in (" a.png", "a.png ", "a b.png", "a.png")]
        box_table.write_box_table(tmp_path / "boxes.csv", rows)
        assert list(box_table.read_box_table(tmp_path / "boxes.csv")) == [row.image for row in rows]
        assert capsys.readouterr().err == ""

    def test_a_failing_writer_leaves_the_table_that_was_there(self, tmp_path):
        def failing():
            yield ROW
            raise RuntimeError

        box_table.write_box_table(tmp_path / "boxes.csv", [ROW])
        with pytest.raises(RuntimeError):
            box_table.write_box_table(tmp_path / "boxes.csv", failing())
        assert box_table.read_box_table(tmp_path / "boxes.csv") == {"a.png": ROW}
        assert [path.name for path in tmp_path.iterdir()] == ["boxes.csv"]

    def test_reads_what_a_spreadsheet_saves(self, tmp_path):
        """A byte order mark, CRLF, columns moved and added."""
        text = (
            "note,image,height,width,left,top,right,bottom,rule,lung_area,checkpoint\r\n"
            "mended,a.png,1000,800,10,20,700,900,drop_small+mirror,0.2345,c0ffee\r\n"
        )
        (tmp_path / "boxes.csv").write_text(text, encoding="utf-8-sig", newline="")
        assert box_table.read_box_table(tmp_path / "boxes.csv") == {"a.png": ROW}

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            (",checkpoint", "", "no column checkpoint"),
            ("c0ffee,,", "c0ffee,1.5,", "row 2: confidence is 1.5, not a share from 0 to 1"),
            (",10,20,", ",10,x,", "row 2: top is 'x', not a whole number"),
            (",10,20,", ",10,20.5,", "row 2: top is '20.5', not a whole number"),
            ("0.2345", "", "row 2: no value for lung_area"),
            ("0.2345,c0ffee", "0.2345,", "row 2: no value for checkpoint"),
            ("0.2345", "1.5", "row 2: lung_area is 1.5"),
            ("0.2345", "nan", "row 2: lung_area is 'nan', not a finite number"),
            (
                "700,900",
                "801,900",
                r"row 2: box .* = \(10, 20, 801, 900\) of a.png is empty or not inside its 800 x 1000",
            ),
            ("700,900", "10,900", "row 2: box"),
            (",10,20,", ",-1,20,", "row 2: box"),
            (
                "c0ffee,",
                "c0ffee,\na.png,800,1000,10,20,700,900,none,0.2,c0ffee\n",
                "row 3: a second row for image a.png",
            ),
        ],
    )
    def test_a_mistake_is_named_with_file_and_row(self, tmp_path, old, new, message):
        path = tmp_path / "boxes.csv"
        box_table.write_box_table(path, [ROW])
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match=message) as caught:
            box_table.read_box_table(path)
        assert str(path) in str(caught.value)

    def test_a_table_as_it_was_written_is_read_without_a_word(self, tmp_path, capsys):
        """A spreadsheet may move columns, drop a zero at the end of a number, and add a byte order mark."""
        rows = [dataclasses.replace(ROW, lung_area=0.3), dataclasses.replace(ROW, image="b.png")]
        box_table.write_box_table(tmp_path / "boxes.csv", rows)
        text = (tmp_path / "boxes.csv").read_text().replace("0.3000", "0.3").replace("\n", "\r\n")
        (tmp_path / "boxes.csv").write_text(text, encoding="utf-8-sig", newline="")
        assert list(box_table.read_box_table(tmp_path / "boxes.csv").values()) == rows
        assert capsys.readouterr().err == ""

    def test_boxes_mended_by_hand_are_used_and_that_is_said_once(self, tmp_path, capsys):
        path = tmp_path / "boxes.csv"
        box_table.write_box_table(path, [dataclasses.replace(ROW, image=f"{number}.png") for number in range(9)])
        lines = path.read_text().splitlines()
        lines[1] = lines[1].replace(",10,20,", ",11,20,")
        lines.append("new.png,800,1000,10,20,700,900,none,0.2,mine,")
        path.write_text("\n".join(lines))
        for _ in range(2):
            rows = box_table.read_box_table(path)
        assert (rows["0.png"].box, rows["1.png"].box) == ((11, 20, 700, 900), ROW.box)
        assert capsys.readouterr().err == (
            f"note: {path}: 2 of 10 boxes are not as they were written (0.png, new.png). They are used; if nobody "
            "edited them, the table is damaged: make it again\n"
        )

    def test_a_table_of_an_older_version_is_used_and_that_is_said_once(self, tmp_path, capsys):
        path = tmp_path / "boxes.csv"
        box_table.write_box_table(path, [ROW])
        path.write_text("\n".join(line.rpartition(",")[0] for line in path.read_text().splitlines()))
        for _ in range(2):
            assert box_table.read_box_table(path) == {"a.png": ROW}
        assert capsys.readouterr().err == (
            f"note: {path} has no column check, as tables of older versions or from elsewhere: its boxes are used\n"
        )

    def test_no_flipped_bit_changes_a_box_in_silence(self, tmp_path, capsys):
        rows = {f"{name}.png": dataclasses.replace(ROW, image=f"{name}.png") for name in "abc"}
        path = tmp_path / "boxes.csv"
        box_table.write_box_table(path, rows.values())
        whole = path.read_bytes()
        for place in range(len(whole) * 8):
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            sealed.say.cache_clear()
            with contextlib.suppress(UserError):
                found = box_table.read_box_table(path)
                assert found == rows or capsys.readouterr().err.startswith("note: ")

    def test_an_empty_file_is_no_table(self, tmp_path):
        (tmp_path / "boxes.csv").touch()
        with pytest.raises(UserError, match=r"boxes\.csv: empty; a table of this kind has image,width"):
            box_table.read_box_table(tmp_path / "boxes.csv")

    def test_a_file_that_is_no_text_is_named(self, tmp_path):
        (tmp_path / "boxes.csv").write_bytes(b"\x89PNG\xff\x00")
        with pytest.raises(UserError, match=r"boxes\.csv, row 1: not text in UTF-8 \(byte 0x89\)"):
            box_table.read_box_table(tmp_path / "boxes.csv")

    def test_counts_of_the_rules(self):
        rules = ["none"] * 6 + ["mirror", "nearest_two+drop_small+mirror"]
        text = box_table.rule_counts(dataclasses.replace(ROW, rule=rule) for rule in rules)
        assert [line.split() for line in text.splitlines()] == [
            ["rule", "images", "share", "paper"],
            ["no", "rule", "6", "75.00%", "95.84%"],
            ["any", "rule", "2", "25.00%", "4.16%"],
            ["nearest_two", "1", "12.50%"],
            ["drop_small", "1", "12.50%"],
            ["mirror", "2", "25.00%"],
            ["whole_image", "0", "0.00%"],
            ["all", "images", "8", "100.00%"],
        ]


@pytest.mark.real
def test_reference_masks_of_montgomery_need_no_rule_and_lose_no_lung(real_data):
    folder = real_data / "montgomery" / "MontgomerySet"
    films = sorted((folder / "CXR_png").glob("*.png"))
    assert len(films) == 138
    for film in films:
        sides = (reader.read_radiograph(folder / "ManualMask" / side / film.name) for side in ("leftMask", "rightMask"))
        lungs = np.maximum(*sides)
        region = lung_box(pixels.resize(lungs, (SIDE, SIDE)) > 127, lungs.shape, PAPER)
        left, top, right, bottom = region.box
        assert region.rule == "none", film.name
        assert np.count_nonzero(lungs[top:bottom, left:right]) == np.count_nonzero(lungs), film.name
