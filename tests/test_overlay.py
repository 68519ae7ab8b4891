import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from sdfn_jax.heatmaps import cam
from sdfn_jax.inference import overlay
from sdfn_jax.radiographs.findings import FINDINGS
from tests.readings import reading


def test_the_colours_are_those_published_for_inferno():
    assert overlay.colours().shape == (256, 3)
    assert [tuple(colour) for colour in overlay.colours()[[0, 255]].tolist()] == [(0, 0, 4), (252, 255, 164)]


@pytest.mark.parametrize(
    ("shape", "side", "size"),
    [((1024, 1024), 1024, (1024, 1024)), ((2500, 2048), 1024, (1024, 839)), ((300, 600), 128, (64, 128))]
    + [((9, 5000), 1024, (2, 1024)), ((1, 5000), 128, (1, 128)), ((64, 32), 1024, (64, 32))],
)
def test_a_film_fits_the_screen_and_is_never_enlarged(shape, side, size):
    assert overlay.screen_size(shape, side) == size


def test_hot_places_cover_the_film_and_cold_ones_leave_it_bare(tmp_path):
    film = reading(size=(96, 600))
    overlay.write(tmp_path / "out" / "heat.png", film, "Mass", drawings=False)
    with Image.open(tmp_path / "out" / "heat.png") as image:
        assert image.mode == "RGB"
        assert image.info == {}  # no metadata
        pixels = np.asarray(image)[:96].astype(float)
    index = FINDINGS.index("Mass")
    heat = cam.rescale(cam.on_radiograph({k: v[..., index] for k, v in film.maps.items()}, film.lung_box, (96, 600)))
    share = 0.65 * heat[..., None] / 255
    expected = film.radiograph[..., None] * (1 - share) + 255 * colormaps["inferno"](heat / 255)[..., :3] * share
    left, top, right, bottom = film.lung_box
    visible = np.ones((96, 600), bool)
    visible[top:bottom, left:right] = False
    visible[top + 2 : bottom - 2, left + 2 : right - 2] = True  # all but the lung box
    np.testing.assert_allclose(pixels[visible], expected[visible], atol=1)
    assert heat[visible].min() < 5 < 250 < heat[visible].max()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["heat.png"]


def test_the_lung_box_and_the_warning_about_synthetic_training_are_drawn(tmp_path):
    film = reading(size=(300, 200))
    overlay.write(tmp_path / "a.png", film, "Hernia", drawings=False)
    overlay.write(tmp_path / "b.png", film, "Hernia", drawings=True)
    plain, warned = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("a.png", "b.png"))
    offset = (plain.shape[1] - 200) // 2  # a narrow film stands in the middle of its caption
    left, top, right, bottom = film.lung_box
    cyan = (plain == (0, 0xE5, 0xFF)).all(axis=2)
    rows, columns = np.flatnonzero(cyan.any(axis=1)), np.flatnonzero(cyan.any(axis=0)) - offset
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (top, bottom, left, right)
    red = (warned[..., 0] > 130) & (warned[..., 1:] < 60).all(axis=2)
    assert red[300:].sum() > 100
    assert warned.shape[0] > plain.shape[0]


def test_an_extractor_without_a_lung_box_is_drawn(tmp_path):
    film = reading(size=(80, 90), branches=("entire",), lung_box=None)
    overlay.write(tmp_path / "a.png", film, "Edema", drawings=False)
    assert not (np.asarray(Image.open(tmp_path / "a.png")) == (0, 0xE5, 0xFF)).all(axis=2).any()


def test_an_unknown_finding_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown finding 'Flu'"):
        overlay.write(tmp_path / "a.png", reading(), "Flu", drawings=False)
    assert list(tmp_path.iterdir()) == []
