import numpy as np
import pytest
import skimage.data

from sdfn_jax.lungs.doubt import doubts
from sdfn_jax.lungs.lung_boxes import LungRegion, PostProcessing, lung_box
from sdfn_jax.radiographs import pixels, quality, synthetic_film
from tools.guards import is_fitted, read_films, truth

FINDINGS = ((), ("Effusion",), ("Cardiomegaly", "Mass"), ("Pneumothorax",), ("Edema", "Consolidation"), ("Emphysema",))


@pytest.fixture(scope="module")
def drawings() -> list[synthetic_film.Drawing]:
    """Drawings, not radiographs: what is told of them shows that the guards work, not how well."""
    return [synthetic_film.draw(np.random.default_rng(seed), found) for seed, found in enumerate(FINDINGS)]


TURNS = {
    (): lambda film: film,
    ("inverted",): lambda film: 255 - film,
    ("rotated_180",): lambda film: film[::-1, ::-1],
    ("rotated_90",): lambda film: np.rot90(film),
    ("rotated_90", "turned right"): lambda film: np.rot90(film, -1),
    ("inverted", "rotated_90"): lambda film: np.rot90(255 - film),
    ("inverted", "rotated_90", "turned right"): lambda film: np.rot90(255 - film, -1),
    ("inverted", "rotated_180"): lambda film: np.rot90(255 - film, 2),
    ("mirrored",): lambda film: film[:, ::-1],
}


@pytest.mark.parametrize("names", TURNS)
def test_a_turned_or_inverted_film_is_flagged_and_corrected(drawings, names):
    expected = tuple(name for name in names if name in quality.FLAGS)
    for drawn in drawings:
        film = np.ascontiguousarray(TURNS[names](drawn.image))
        assert quality.check(film) == expected
        for name in expected:
            film = quality.fix(film, name)
        assert quality.check(film) == ()
        if names != ("mirrored",):
            np.testing.assert_array_equal(film, drawn.image)


def test_checking_changes_nothing(drawings):
    film = drawings[0].image.copy()
    film.flags.writeable = False
    quality.check(film)
    np.testing.assert_array_equal(film, drawings[0].image)


def test_wide_borders_are_flagged_and_do_not_hide_a_turn(drawings):
    for fill in (0, 128, 255):
        film = np.pad(255 - drawings[0].image, 400, constant_values=fill)
        assert quality.check(film) == ("inverted", "border")
    assert quality.check(np.pad(drawings[0].image, 100)) == ()


def test_an_almost_empty_film_is_flagged():
    rng = np.random.default_rng(0)
    for film in (np.zeros((300, 300)), np.full((300, 250), 255), rng.integers(100, 112, (400, 300))):
        assert quality.check(film.astype(np.uint8)) == ("almost_empty",)
    spot = np.zeros((1000, 1000), np.uint8)
    spot[500:503, 500:503] = 255
    assert quality.check(spot) == ("almost_empty",)
    assert quality.check(np.zeros((1, 1), np.uint8)) == ("almost_empty", "too_small")
    assert quality.fix(np.zeros((3, 5), np.uint8), "rotated_90").shape == (5, 3)


def test_small_films_are_flagged(drawings):
    assert "too_small" in quality.check(pixels.resize(drawings[0].image, (224, 223)))
    assert quality.check(pixels.resize(drawings[0].image, (224, 224))) == ()


@pytest.mark.parametrize(
    "name", ["brick", "chelsea", "coffee", "coins", "grass", "gravel", "page", "rocket", "text", "retina", "astronaut"]
)
def test_pictures_of_other_things_are_flagged(name):
    """scikit-image's own pictures; nothing in the guards was fitted to any."""
    picture = getattr(skimage.data, name)()
    grey = picture if picture.ndim == 2 else np.rint(picture[..., :3].mean(axis=2)).astype(np.uint8)
    assert "not_frontal_chest" in quality.check(np.ascontiguousarray(grey))


def region(drawn: synthetic_film.Drawing, **changed) -> LungRegion:
    lungs = pixels.resize((drawn.left_lung | drawn.right_lung).astype(np.uint8) * 255, (256, 256)) > 127
    found = lung_box(lungs, drawn.image.shape, PostProcessing())
    return LungRegion(**{**{name: getattr(found, name) for name in ("box", "rule", "cleaned", "kept")}, **changed})


def test_an_implausible_lung_region_is_flagged(drawings):
    for drawn in drawings:
        assert doubts(region(drawn), drawn.image.shape, None) == ()
    film = drawings[0].image
    none = lung_box(np.zeros((256, 256), bool), film.shape, PostProcessing())
    assert none.rule == "whole_image"
    speck = np.zeros((256, 256), bool)
    speck[100:130, 100:140] = True
    for unlikely in (
        none,
        region(drawings[0], rule="mirror+whole_image"),
        region(drawings[0], box=(300, 100, 700, 900)),
        region(drawings[0], box=(100, 300, 900, 650)),
        region(drawings[0], cleaned=speck),
    ):
        assert doubts(unlikely, film.shape, None) == ("lung_region_fallback",)


def test_each_flag_has_a_sentence_and_each_fix_a_flag():
    assert set(quality.FIXES) <= set(quality.FLAGS)
    assert all(sentence.endswith(".") for sentence in (*quality.FLAGS.values(), *quality.FIXES.values()))
    with pytest.raises(ValueError, match="unknown correction 'border'; expected one of inverted, rotated_90"):
        quality.fix(np.zeros((3, 3), np.uint8), "border")


@pytest.mark.real
def test_real_films_are_left_alone_and_turned_ones_flagged(real_data):
    """Every seventh film of the half to which nothing was fitted; on all of it, 98.6 % are left alone, and told."""
    films = {name: film for name, film in read_films(real_data).items() if not is_fitted(name)}
    alone, told, flagged, upright = 0, 0, 0, 0
    for name in sorted(films)[::7]:
        if truth(name):
            assert quality.check(films[name]) != ()
            continue
        upright += 1
        alone += quality.check(films[name]) == ()
        for names in (("inverted",), ("rotated_90",), ("rotated_90", "turned right"), ("rotated_180",)):
            flags = quality.check(np.ascontiguousarray(TURNS[names](films[name])))
            told += flags == names[:1]
            flagged += flags != ()
    assert upright == 29
    assert alone >= 27
    assert told >= 4 * 27
    assert flagged == 4 * upright
