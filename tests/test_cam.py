import jax
import numpy as np
import pytest
from jax import numpy as jnp
from matplotlib.image import AxesImage
from PIL import Image
from skimage.transform import resize as skimage_resize

from sdfn_jax.heatmaps import cam, figures
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.sdfn import SDFN

BRANCHES = ("entire", "lung")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def network(rng, channels=(24, 16)):
    """Features of two branches and a head, as the fusion network returns them."""
    features = {
        name: np.maximum(rng.normal(size=(3, 7, 5, count)), 0).astype(np.float32)
        for name, count in zip(BRANCHES, channels, strict=True)
    }
    return features, rng.normal(size=(sum(channels), 14)).astype(np.float32), rng.normal(size=14).astype(np.float32)


def test_the_means_of_the_maps_and_the_bias_are_the_logit(rng):
    features, kernel, bias = network(rng)
    pooled = np.concatenate([features[name].mean(axis=(1, 2)) for name in BRANCHES], axis=-1)
    logits = pooled @ kernel + bias
    maps = cam.activation_maps(features, kernel, BRANCHES)
    means = sum(maps[name].mean(axis=(1, 2)) for name in BRANCHES)
    np.testing.assert_allclose(means + bias, logits, atol=1e-5)


def test_the_maps_of_the_network_explain_its_logits(rng):
    branches = ("lung", "entire")  # jit hands the features back in the alphabet's order
    tiny = {"growth_rate": 4, "block_sizes": (1, 1), "init_features": 6, "bottleneck": 2}
    model = SDFN(branches=branches, shape=tiny)
    images = {name: rng.normal(size=(2, 32, 32, 3)).astype(np.float32) for name in branches}
    variables = initial_variables(model, 0, images, train=False)
    logits, features = jax.jit(lambda variables, images: model.apply(variables, images, False))(variables, images)
    head = variables["params"]["head"]
    maps = cam.activation_maps(features, head["kernel"], branches)
    means = sum(heatmap.mean(axis=(1, 2)) for heatmap in maps.values())
    np.testing.assert_allclose(means + head["bias"], logits, rtol=1e-5, atol=1e-5)


def test_a_map_is_the_weighted_sum_of_its_own_features(rng):
    features, kernel, _ = network(rng)
    maps = cam.activation_maps(features, kernel, BRANCHES)
    image, row, column, finding = 1, 4, 2, 9
    entire = sum(kernel[j, finding] * features["entire"][image, row, column, j] for j in range(24))
    lung = sum(kernel[24 + j, finding] * features["lung"][image, row, column, j] for j in range(16))
    assert maps["entire"].shape == (3, 7, 5, 14)
    assert maps["entire"][image, row, column, finding] == pytest.approx(entire, abs=1e-5)
    assert maps["lung"][image, row, column, finding] == pytest.approx(lung, abs=1e-5)


def test_the_order_of_branches_is_the_kernels_not_the_dictionarys(rng):
    features, kernel, _ = network(rng, channels=(16, 16))
    turned = dict(reversed(features.items()))
    for name in BRANCHES:
        np.testing.assert_array_equal(
            cam.activation_maps(turned, kernel, BRANCHES)[name], cam.activation_maps(features, kernel, BRANCHES)[name]
        )


def test_one_network_alone_has_one_map(rng):
    features, kernel, _ = network(rng)
    maps = cam.activation_maps({"lung": features["lung"]}, kernel[24:], ("lung",))
    np.testing.assert_allclose(maps["lung"], cam.activation_maps(features, kernel, BRANCHES)["lung"], atol=1e-6)


def test_a_head_of_another_network_is_refused(rng):
    features, kernel, _ = network(rng)
    with pytest.raises(ValueError, match="40 rows does not fit branches \\('entire',\\) of \\[24\\]"):
        cam.activation_maps(features, kernel, ("entire",))


def test_enlarging_is_bilinear_between_cell_centres(rng):
    heatmap = rng.normal(size=(7, 7)).astype(np.float32)
    ours = cam.resize_map(heatmap, (70, 91))
    peer = skimage_resize(heatmap, (70, 91), order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(ours, peer, atol=1e-5)
    assert ours.dtype == np.float32
    # Taken from a (h, w, K) array, a map is not contiguous.
    np.testing.assert_array_equal(cam.resize_map(np.stack([heatmap] * 3, axis=-1)[..., 1], (70, 91)), ours)


def test_the_lung_map_lands_on_the_lung_box():
    # The hot cell of a 7 x 7 map, row 1 and column 5, covers rows 1/7..2/7 and columns 5/7..6/7 of the box.
    lung = np.zeros((7, 7), np.float32)
    lung[1, 5] = 1
    box = (100, 40, 240, 180)  # 140 x 140: cells of 20 pixels
    fused = cam.on_radiograph({"entire": np.zeros((7, 7), np.float32), "lung": lung}, box, (200, 300))
    assert fused.shape == (200, 300)
    rows, columns = np.nonzero(fused == fused.max())
    assert (rows.mean(), columns.mean()) == (40 + 30 - 0.5, 100 + 110 - 0.5)
    outside = np.ones((200, 300), bool)
    outside[40:180, 100:240] = False
    np.testing.assert_allclose(fused[outside], 1 / 49)


def test_the_fusion_adds_the_two_maps(rng):
    entire, lung = rng.normal(size=(2, 7, 7)).astype(np.float32)
    box = (10, 20, 60, 90)
    fused = cam.on_radiograph({"entire": entire, "lung": lung}, box, (100, 80))
    alone = cam.on_radiograph({"lung": lung}, box, (100, 80))
    np.testing.assert_allclose(fused - cam.resize_map(entire, (100, 80)), alone, atol=1e-5)
    np.testing.assert_array_equal(alone[20:90, 10:60], cam.resize_map(lung, (70, 50)))


def test_a_box_of_another_radiograph_is_refused():
    for box in [(0, 0, 81, 100), (0, 0, 80, 101), (-1, 0, 9, 9), (5, 5, 5, 9)]:
        with pytest.raises(ValueError, match="not inside a radiograph of 80 x 100"):
            cam.on_radiograph({"lung": np.ones((7, 7))}, box, (100, 80))


def test_rescaling_spans_0_to_255_and_keeps_the_order(rng):
    heatmap = rng.normal(size=(9, 9)).astype(np.float32) * 1e-3
    scaled = cam.rescale(heatmap)
    assert (scaled.min(), scaled.max()) == (0, pytest.approx(255))
    np.testing.assert_array_equal(np.argsort(scaled, axis=None), np.argsort(heatmap, axis=None))
    np.testing.assert_array_equal(cam.rescale(np.full((4, 4), -3.0)), np.zeros((4, 4)))


def case(rng, **changes):
    values = {
        "image": "00000001_000.png",
        "radiograph": rng.integers(0, 256, (120, 100), dtype=np.uint8),
        "finding": "Pleural_Thickening",
        "probability": 0.734,
        "label": 1,
        "lung_box": (10, 20, 90, 110),
        "reference_boxes": [(30.5, 40.5, 60, 70)],
        "entire": rng.normal(size=(7, 7)),
        "lung": rng.normal(size=(7, 7)),
    }
    return figures.FindingMaps(**(values | changes))


def test_a_page_of_heatmaps_names_finding_probability_and_label(tmp_path, rng):
    figures.heatmap_page(tmp_path / "page.svg", [case(rng), case(rng, label=0, reference_boxes=[])], drawings=True)
    text = (tmp_path / "page.svg").read_text()
    for part in ("Pleural thickening", "p = 0.734, label 1", "p = 0.734, label 0", "00000001_000.png", "lung box"):
        assert part in text
    assert "SYNTHETIC" in text
    figures.heatmap_page(tmp_path / "real.svg", [case(rng)], drawings=False)
    assert "SYNTHETIC" not in (tmp_path / "real.svg").read_text()


def test_a_page_of_heatmaps_is_a_picture(tmp_path, rng):
    figures.heatmap_page(tmp_path / "page.png", [case(rng)], drawings=True)
    with Image.open(tmp_path / "page.png") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0xE5, 0xFF), (0x39, 0xFF, 0x14)):  # lung box, reference box
        assert (pixels == colour).all(axis=1).sum() > 100


def test_a_page_is_the_one_matplotlib_saves_with_each_image_resampled_once(tmp_path, rng, monkeypatch):
    resampled = []
    make_image = AxesImage.make_image
    monkeypatch.setattr(AxesImage, "make_image", lambda *args, **more: resampled.append(1) or make_image(*args, **more))
    figures.heatmap_page(tmp_path / "ours.png", [case(rng)], drawings=True)
    assert len(resampled) == 4 + 3  # the radiograph in four panels, a heatmap over three of them
    monkeypatch.setattr(figures, "_save", lambda figure, path: figure.savefig(path, dpi=100, bbox_inches="tight"))
    figures.heatmap_page(tmp_path / "plain.png", [case(np.random.default_rng(0))], drawings=True)
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_a_page_without_cases_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no case"):
        figures.heatmap_page(tmp_path / "page.png", [], drawings=False)


def test_figure_nine_has_the_traditional_map_above_and_the_sdfns_below(tmp_path, rng):
    cases = [case(rng), case(rng, finding="Mass", image="2.png")]
    figures.figure_nine(tmp_path / "nine.svg", cases, [rng.normal(size=(7, 7))] * 2, drawings=True)
    text = (tmp_path / "nine.svg").read_text()
    assert all(part in text for part in ("Traditional (entire CXR)", "SDFN", "Mass", "2.png", "SYNTHETIC"))
    with pytest.raises(ValueError, match="no case"):
        figures.figure_nine(tmp_path / "none.png", [], [], drawings=False)


def test_the_upper_row_is_the_traditional_map(tmp_path, rng):
    def middle(traditional, fused):
        nothing = np.zeros((7, 7))
        one = case(
            rng, radiograph=np.zeros((100, 100), np.uint8), entire=fused, lung=nothing, lung_box=(0, 0, 100, 100)
        )
        figures.figure_nine(tmp_path / "nine.png", [one], [traditional], drawings=False)
        with Image.open(tmp_path / "nine.png") as image:
            pixels = np.asarray(image.convert("L"), float)
        return pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]

    hot = np.zeros((7, 7))
    hot[3, 3] = 1
    upper, lower = middle(hot, np.zeros((7, 7)))
    other_upper, other_lower = middle(np.zeros((7, 7)), hot)
    assert upper.mean() > other_upper.mean()
    assert lower.mean() < other_lower.mean()


def test_on_the_radiograph_a_network_has_its_own_maps(rng):
    entire, lung = rng.normal(size=(2, 7, 7)).astype(np.float32)
    box, size = (10, 20, 60, 90), (100, 80)
    np.testing.assert_array_equal(cam.on_radiograph({"entire": entire}, box, size), cam.resize_map(entire, size))
    alone = cam.on_radiograph({"lung": lung}, box, size)
    both = cam.on_radiograph({"lung": lung, "entire": entire}, box, size)
    np.testing.assert_array_equal(both, cam.resize_map(entire, size) + alone)
    np.testing.assert_array_equal(both, cam.on_radiograph({"entire": entire, "lung": lung}, box, size))


class TestOutsideTheLungBox:
    """The paper adds the lung region's map at the lung box and is silent about the rest."""

    @pytest.mark.parametrize(
        ("rule", "level"), [("mean", lambda lung: lung.mean()), ("minimum", np.min), ("zero", lambda lung: 0.0)]
    )
    def test_each_rule_is_a_level(self, rng, rule, level):
        entire, lung = rng.normal(size=(2, 5, 4)).astype(np.float32)
        left, top, right, bottom = box = (3, 5, 17, 24)
        found = cam.on_radiograph({"entire": entire, "lung": lung}, box, (30, 20), rule)
        background, inside = cam.resize_map(entire, (30, 20)), cam.resize_map(lung, (bottom - top, right - left))
        for y in range(30):
            for x in range(20):
                within = left <= x < right and top <= y < bottom
                added = inside[y - top, x - left] if within else level(lung)
                assert found[y, x] == pytest.approx(background[y, x] + added, abs=1e-5)

    def test_moving_a_constant_between_map_and_bias_changes_no_heatmap(self, rng):
        entire, lung = rng.normal(size=(2, 7, 7)).astype(np.float32)
        box, size = (10, 20, 60, 90), (100, 80)

        def change(rule):
            return np.abs(
                np.subtract(
                    *(
                        cam.rescale(cam.on_radiograph({"entire": entire, "lung": lung + added}, box, size, rule))
                        for added in (0, -3)
                    )
                )
            ).max()

        assert change("mean") < 0.01
        assert change("minimum") < 0.01
        assert change("zero") > 50  # of 255

    def test_a_lung_network_points_into_the_lungs_although_its_map_is_negative(self, rng):
        for _ in range(20):
            lung = rng.normal(size=(7, 7)).astype(np.float32) - 5
            heatmap = cam.on_radiograph({"lung": lung}, (10, 20, 60, 90), (100, 80))
            y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
            assert 10 <= x < 60 and 20 <= y < 90

    def test_a_lung_branch_that_prefers_no_place_leaves_the_entire_map_as_it_is(self, rng):
        entire = rng.normal(size=(7, 7)).astype(np.float32)
        both = {"entire": entire, "lung": np.full((7, 7), -2, np.float32)}
        fused = cam.on_radiograph(both, (10, 20, 60, 90), (100, 80))
        np.testing.assert_allclose(fused, cam.resize_map(entire, (100, 80)) - 2, atol=1e-5)

    @pytest.mark.parametrize("rule", cam.OUTSIDE)
    def test_relative_maps_placed_on_zero_differ_by_a_constant(self, rng, rule):
        maps = dict(zip(BRANCHES, rng.normal(size=(2, 7, 7, 3)).astype(np.float32), strict=True))
        relative = cam.relative_to_outside(maps, rule)
        for finding in range(3):
            one, other = (
                cam.on_radiograph(
                    {name: each[..., finding] for name, each in some.items()}, (10, 20, 60, 90), (100, 80), how
                )
                for some, how in ((maps, rule), (relative, "zero"))
            )
            np.testing.assert_allclose(one - one[0, 0], other - other[0, 0], atol=1e-5)


def test_grad_cam_plus_plus_is_the_published_formula(rng):
    features, kernel = rng.random((2, 2, 3)), rng.normal(size=(3, 2)).astype(np.float32)
    (found,) = cam.grad_cam_plus_plus({"entire": features[None]}, kernel, ("entire",))["entire"]

    @jax.jit
    def derivatives(flat, weights):
        def score(flat):
            return jnp.exp(flat.reshape(4, 3).mean(0) @ weights)

        hessian = jax.hessian(score)
        third = jnp.einsum("iii->i", jax.jacfwd(hessian)(flat))
        return score(flat), jax.grad(score)(flat), jnp.diag(hessian(flat)), third

    for finding in range(2):
        flat = features.astype(np.float32).ravel()
        score, *of_places = (np.asarray(each, np.float64) for each in derivatives(flat, kernel[:, finding]))
        slope, curvature, third = (each.reshape(4, 3) for each in of_places)
        alpha = curvature / (2 * curvature + features.reshape(4, 3).sum(0) * third)
        weights = (alpha * np.maximum(slope, 0)).sum(0)
        expected = np.maximum(features @ weights, 0)
        np.testing.assert_allclose(found[..., finding] * score, expected, rtol=1e-4)
