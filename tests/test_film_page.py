"""The page of films: what stands in it, and what a real browser makes of it."""

import base64
import csv
import dataclasses
import io
import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from sdfn_jax.core import csv_table, palette
from sdfn_jax.heatmaps import cam
from sdfn_jax.inference import film_page
from sdfn_jax.inference.columns import columns
from sdfn_jax.inference.overlay import colours, screen_size
from sdfn_jax.radiographs.findings import FINDINGS, display_name
from sdfn_jax.radiographs.flags import FIXES, FLAGS
from tests.browser import Keys, chromium
from tests.readings import PROVENANCE, reading

POINT = 0.3  # of every finding but Hernia, which has none


def order_of(film):
    """The findings' places as the page lists them: by their odds, as all have one operating point; Hernia last."""
    return sorted(range(14), key=lambda index: (index == 13, -film.probabilities[FINDINGS[index]]))


def decoded(text):
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.format == "JPEG"
        assert not image.getexif()
        return np.asarray(image)


def test_an_entry_is_json_and_keeps_film_and_maps():
    film = reading(size=(300, 2048))
    held = json.loads(json.dumps(film_page.entry(film), allow_nan=False))
    assert held["size"] == [2048, 300]
    assert held["picture"]["screen"] == [1024, 150]
    assert decoded(held["picture"]["film"]).shape == (150, 1024)
    assert decoded(held["thumbnail"]).shape == (19, 128)
    assert held["findings"]["probability"] == list(film.probabilities.values())
    assert held["findings"]["calibrated"] == [""] * 4 + [0.125, 0.25] + [""] * 8
    called = ["positive" if value >= POINT else "negative" for value in film.probabilities.values()]
    assert held["findings"]["decision"] == [*called[:13], "undecided"]
    assert held["picture"]["boxes"].keys() == {FINDINGS[k] for k in range(13) if called[k] == "positive"} | {film.top}
    assert held["picture"]["outline"] == "M512 75 1024 75 682 150Z"
    for branch, maps in cam.relative_to_outside(film.maps).items():
        kept = held["picture"]["maps"][branch]
        values = np.frombuffer(base64.b64decode(kept["values"]), "<f4").reshape(14, *kept["shape"])
        np.testing.assert_array_equal(np.moveaxis(values, 0, -1), maps)


def test_a_page_that_is_not_complete_does_not_appear(tmp_path):
    def broken():
        yield film_page.entry(reading())
        raise KeyboardInterrupt

    (tmp_path / "page.html").write_text("an older page")
    with pytest.raises(KeyboardInterrupt):
        film_page.write(tmp_path / "page.html", PROVENANCE, broken())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an older page"]


def test_entries_are_written_one_at_a_time():
    made = []

    def entries():
        for number in range(3):
            made.append(number)
            yield film_page.entry(reading(seed=number))

    pieces = film_page.document(PROVENANCE, entries())
    assert not made
    while not made:
        assert next(pieces)
    assert made == [0]


def test_what_was_not_read_is_listed_once_by_name_and_reason(tmp_path):
    problems = [("<b>.png", "<b>.png: cannot be decoded"), ("a\udcff.png", "is empty")]
    for number in range(2):
        pager = film_page.Pager(("index.html", "index_2.html"), number, 1, 1, 2)
        film_page.write(tmp_path / f"{number}.html", PROVENANCE, [film_page.entry(reading())], pager, problems)
    first, second = ((tmp_path / f"{number}.html").read_text() for number in range(2))
    assert "2 files were not read" in first and "<bdi>&lt;b&gt;.png</bdi>: &lt;b&gt;.png: cannot be decoded" in first
    assert "is empty" in first
    assert "not read" not in second


def test_a_network_that_is_no_better_than_chance_says_so_first():
    sentence = "Validation does not show this network to be better than chance: mean AUC 0.51."
    provenance = dataclasses.replace(PROVENANCE, no_better_than_chance=sentence)
    header = "".join(film_page.document(provenance, ())).split("</header>")[0]
    assert f'<p class="note">{sentence}</p>' in header
    assert "chance" not in "".join(film_page.document(PROVENANCE, ())).split("</header>")[0]


def test_a_page_begins_with_what_a_reader_must_know():
    made = {
        (stage, drawings): film_page.notes(dataclasses.replace(PROVENANCE, stage=stage, drawings=drawings))
        for stage in ("fusion", None)
        for drawings in (True, False)
    }
    assert made["fusion", False] == []
    assert made["fusion", True] == [film_page.SYNTHETIC]
    assert made[None, False] == [film_page.NO_CLASSIFIER]
    assert made[None, True] == [film_page.NO_CLASSIFIER, film_page.SYNTHETIC_LUNGS]


def test_the_page_holds_no_address_and_one_policy(tmp_path):
    film_page.write(tmp_path / "page.html", PROVENANCE, [film_page.entry(reading())])
    text = (tmp_path / "page.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.|fetch\(|XMLHttpRequest|import\(", text)
    assert text.count("Content-Security-Policy") == 1
    assert "default-src &#x27;none&#x27;" in text


def test_a_page_says_what_it_was_made_with(tmp_path):
    film_page.write(tmp_path / "page.html", PROVENANCE, [])
    text = (tmp_path / "page.html").read_text()
    for part in ("c1a551f1e2", "1un95e93a7", "size224_labels2017", "SDFN (stage fusion)", "0.449", "0.10.2", "1,209"):
        assert part in text
    assert text.count("For research, not for diagnosis") == 1
    assert film_page.SYNTHETIC not in text


# In a real browser.

HOSTILE = (
    '<img src=x onerror="window.taken=1">.png',
    "</script><script>window.taken=2</script>.png",
    "<!--<script>\u2028 & &lt; \udcff.png",
)


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def films():
    """Of many shapes: small, larger than a screen, of one branch, with a map that is constant, with hostile names."""
    flat = {branch: np.full((4, 4, 14), 0.5, np.float32) for branch in ("entire", "lung")}
    # The largest sum is that of the last column before the lung box, which the copy for the screen leaves out.
    edge = {branch: np.random.default_rng(0).normal(0, 0.01, (32, 32, 14)).astype(np.float32) for branch in flat}
    edge["entire"][:, 4] += 1
    edge["lung"] -= 1
    return [
        reading("films/first.png"),
        reading("films/large.png", (1300, 1700), 1, flags=("not_frontal_chest", "border"), fixes=("inverted",)),
        reading("films/entire.png", (130, 70), 2, ("entire",), lung_box=None, rule=""),
        reading("films/lung.png", (90, 90), 3, ("lung",), flags=("inverted",)),
        reading("films/flat.png", (64, 64), 4, maps=flat, lung_box=(0, 0, 64, 64)),
        reading("films/fine.png", (40, 60), 5, cells=(32, 32), lung_box=(20, 10, 38, 25)),
        reading("films/edge.png", (1300, 1700), 9, maps=edge, lung_box=(213, 150, 1500, 1200)),
        *(reading(name, (50, 50), 6 + index) for index, name in enumerate(HOSTILE)),
    ]


@pytest.fixture(scope="module")
def page(films, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    film_page.write(path, PROVENANCE, map(film_page.entry, films))
    return path.as_uri()


@pytest.fixture
def opened(page, browser):
    browser.get(page)
    yield browser
    assert browser.get_log("browser") == []


def press(driver, *keys):
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def heatmap_on_show(driver, every=1):
    """The canvas's own pixels, each `every`-th of its rows and columns: (h, w, 4)."""
    size, values = driver.execute_script(
        "const canvas = document.getElementById('heatmap'), every = arguments[0];"
        "const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        "const kept = [];"
        "for (let y = 0; y < canvas.height; y += every) for (let x = 0; x < canvas.width; x += every)"
        "  kept.push(...data.subarray(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 4));"
        "return [[Math.ceil(canvas.height / every), Math.ceil(canvas.width / every)], kept]",
        every,
    )
    return np.array(values, np.uint8).reshape(*size, 4)


def names_listed(driver):
    return driver.execute_script("return [...document.querySelectorAll('#thumbnails bdi')].map(e => e.textContent)")


def state(driver):
    return driver.execute_script(
        "const shown = id => getComputedStyle(document.getElementById(id)).display !== 'none';"
        "return {film: document.getElementById('name').textContent, heatmap: shown('heatmap'), box: shown('box'),"
        " finding: document.querySelector('.finding:has(:checked) .name')?.firstChild.data ?? null,"
        " keys: document.getElementById('keys').open}"
    )


def test_the_picture_is_cams_for_every_shape_of_film(opened, films):
    opened.execute_script("for (const film of films) film.anyway = true")
    for number, film in enumerate(films[:7]):
        if number:
            press(opened, "j")
        height, width = film.radiograph.shape
        every = 1 if width < 1024 else 13
        rows, columns = (
            np.floor((np.arange(count) + 0.5) * side / count).astype(int)[::every]
            for count, side in zip(screen_size((height, width)), (height, width), strict=True)
        )
        pictures = []
        for index in np.take(order_of(film), [0, 1, 13]):
            opened.find_element("css selector", f".finding:has([value='{index}'])").click()
            maps = {branch: values[..., index] for branch, values in film.maps.items()}
            expected = cam.rescale(cam.on_radiograph(maps, film.lung_box, (height, width)))[np.ix_(rows, columns)]
            picture = heatmap_on_show(opened, every)
            # Opacity is the rescaled heatmap, rounded; sums of float32 may round the other way.
            np.testing.assert_allclose(picture[..., 3], expected, atol=0.51)
            # Colours come back less exactly where they are transparent: a canvas keeps them multiplied by the opacity.
            strong = expected > 128
            colour = colours()[np.minimum(expected * 256 / 255, 255).astype(int)]
            np.testing.assert_allclose(picture[..., :3][strong].astype(int), colour[strong], atol=4)
            pictures.append(picture)
        flat = film.name == "films/flat.png"
        assert all((pictures[0] == other).all() == flat for other in pictures[1:])
        said = opened.find_element("id", "range").text
        assert ("points nowhere" in said) == flat
        assert ("rescaled on its own" in said) != flat


def test_the_lung_box_lies_where_it_is_in_the_film(opened, films):
    press(opened, "j")
    film = films[1]
    stage, box = opened.execute_script(
        "return [document.getElementById('radiograph'), document.querySelector('#box rect:last-child')]"
        ".map(e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom] })"
    )
    scale = (stage[2] - stage[0]) / 1700
    expected = np.array(film.lung_box) * scale + [stage[0], stage[1]] * 2
    np.testing.assert_allclose(box, expected, atol=1.5)  # the line is 2 pixels wide
    assert (stage[3] - stage[1]) / (stage[2] - stage[0]) == pytest.approx(1300 / 1700, abs=0.01)
    press(opened, "j")
    assert not state(opened)["box"]  # of a film without one


def test_positive_findings_come_first_then_the_nearest_to_their_points(opened, films):
    rows = opened.find_elements("class name", "finding")
    order = order_of(films[0])
    assert [int(row.find_element("tag name", "input").get_property("value")) for row in rows] == order
    positives = sum(value >= POINT for name, value in films[0].probabilities.items() if name != "Hernia")
    heads = [each.text for each in opened.find_elements("css selector", "#list h3")]
    assert heads == [f"Positive ({positives})", f"Negative ({13 - positives})", "No decision (1)"]
    for row, index in zip(rows, order, strict=True):
        probability = films[0].probabilities[FINDINGS[index]]
        assert display_name(FINDINGS[index]) in row.text and f"{probability:.3f}" in row.text
        bar = row.find_element("class name", "bar").rect
        if FINDINGS[index] == "Hernia":  # has no operating point
            assert "0.70 (0.40–0.95) 3" in row.text
            assert not row.find_elements("class name", "mark")
            continue
        assert "0.81 (0.74–0.87) 31" in row.text
        mark = row.find_element("class name", "mark").rect
        assert mark["x"] + 1 == pytest.approx(bar["x"] + bar["width"] / 2, abs=1)  # always in the middle
        odds = probability / (1 - probability) / (POINT / (1 - POINT))
        fill = row.find_element("class name", "fill").size["width"]
        assert fill == pytest.approx(bar["width"] * odds / (1 + odds), abs=1)


def test_a_chosen_finding_says_what_its_numbers_rest_on(opened):
    def said(name):
        opened.find_element("css selector", f".finding:has([value='{FINDINGS.index(name)}'])").click()
        return opened.find_element("id", "detail").text

    assert opened.find_element("id", "detail").text == ""
    mass = said("Mass")
    assert "calibrated 0.125" in mass
    assert "Positive from 0.300: sensitivity 0.90, specificity 0.63 on validation." in mass
    assert "AUC there 0.81, 95 % interval 0.74 to 0.87. 31 films with it, 1209 without." in mass
    assert "not calibrated" in said("Edema")
    assert f"No decision: {PROVENANCE.undecided['Hernia']}" in said("Hernia")


def test_there_is_no_heatmap_until_a_finding_is_chosen(opened):
    assert (state(opened)["finding"], state(opened)["heatmap"]) == (None, False)
    assert not opened.find_element("id", "strength").is_displayed()
    press(opened, "h", "h")
    assert (state(opened)["finding"], state(opened)["heatmap"]) == (None, False)
    press(opened, Keys.ARROW_DOWN)
    assert state(opened)["finding"] and state(opened)["heatmap"]
    press(opened, Keys.ESCAPE)
    assert (state(opened)["finding"], state(opened)["heatmap"]) == (None, False)


def test_the_boxes_of_a_finding_are_drawn(opened, films):
    film = films[0]
    for index in order_of(film)[:2] + order_of(film)[-2:-1]:  # two that are positive, one that is not
        opened.find_element("css selector", f".finding:has([value='{index}'])").click()
        expected = film.marked.get(FINDINGS[index], {})
        for threshold in ("60", "180"):
            drawn = opened.execute_script(
                "return [...document.querySelectorAll(arguments[0])].map("
                "e => ['x', 'y', 'width', 'height'].map(name => Number(e.getAttribute(name))))",
                f"#marks .over-{threshold}",
            )
            boxes = [
                [left, top, right - left, bottom - top] for left, top, right, bottom in expected.get(threshold, [])
            ]
            assert drawn == boxes
    press(opened, Keys.HOME)
    opened.find_element("css selector", f".finding:has([value='{order_of(film)[0]}'])").click()
    assert opened.find_element("id", "marks").value_of_css_property("display") != "none"
    press(opened, "x")
    assert opened.find_element("id", "marks").value_of_css_property("display") == "none"


def sheet(driver):
    """The film's place in the window: left, top, width, height."""
    return driver.execute_script(
        "const r = document.getElementById('sheet').getBoundingClientRect(); return [r.left, r.top, r.width, r.height]"
    )


def mouse(driver, kind, x, y, **more):
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})


def drag(driver, start, stop, button="left", **more):
    held = {"left": 1, "right": 2}[button]
    mouse(driver, "mousePressed", *start, button=button, clickCount=1, buttons=held, **more)
    mouse(driver, "mouseMoved", *stop, button=button, buttons=held, **more)
    mouse(driver, "mouseReleased", *stop, button=button, clickCount=1, **more)


class TestView:
    @pytest.fixture
    def centre(self, opened):
        return opened.execute_script(
            "const r = document.getElementById('stage').getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2]"
        )

    def test_the_wheel_enlarges_what_is_under_it(self, opened, centre):
        x, y = centre[0] + 60, centre[1] - 40
        before = sheet(opened)
        for _ in range(4):
            mouse(opened, "mouseWheel", x, y, deltaX=0, deltaY=-200)
        time.sleep(0.2)
        after = sheet(opened)
        assert after[2] > 2 * before[2]
        for start, length, place in ((0, 2, x), (1, 3, y)):
            assert (place - after[start]) / after[length] == pytest.approx(
                (place - before[start]) / before[length], abs=0.01
            )
        press(opened, "0")
        assert sheet(opened) == pytest.approx(before, abs=0.5)

    def test_dragging_moves_an_enlarged_film_and_never_out_of_sight(self, opened, centre):
        press(opened, "+", "+", "+")
        before = sheet(opened)
        drag(opened, centre, (centre[0] - 30, centre[1] + 20))
        after = sheet(opened)
        assert after[:2] == pytest.approx([before[0] - 30, before[1] + 20], abs=1)
        drag(opened, centre, (centre[0] + 3000, centre[1]))
        stage = opened.find_element("id", "stage").rect
        assert sheet(opened)[0] <= stage["x"] + 1

    @pytest.mark.parametrize("way", ["right", "shift", "button", "keys"])
    def test_window_and_level(self, opened, centre, way):
        to = (centre[0] - 100, centre[1])
        if way == "right":
            drag(opened, centre, to, button="right")
        elif way == "shift":
            drag(opened, centre, to, modifiers=8)
        elif way == "button":
            opened.find_element("id", "contrast").click()
            drag(opened, centre, to)
        else:
            press(opened, *"[[[[[[[")  # 16 grey levels each
        wide = 143 if way == "keys" else 155
        assert opened.find_element("css selector", "#grey feFuncR").get_attribute("slope")[:5] == str(255 / wide)[:5]
        assert "grey" in opened.find_element("id", "radiograph").value_of_css_property("filter")
        assert "Grey levels" in opened.find_element("id", "window").text
        opened.find_element("id", "reset").click()
        assert opened.find_element("id", "radiograph").value_of_css_property("filter") == "none"

    def test_lines_keep_their_width(self, opened):
        press(opened, *"++++++")
        left, right = opened.execute_script(
            "const r = document.querySelector('#box rect:last-child').getBoundingClientRect(); return [r.left, r.right]"
        )
        at, _, width, _ = sheet(opened)
        assert (left - at) / width == pytest.approx(120 // 8 / 120, abs=0.005)
        assert (right - at) / width == pytest.approx((120 - 120 // 5) / 120, abs=0.005)


def test_two_fingers_enlarge_the_film_and_one_moves_it(page):
    with chromium("phone") as driver:
        driver.get(page)
        stage = driver.find_element("id", "stage").rect
        x, y = (
            stage["x"] + stage["width"] / 2,
            stage["y"] + stage["height"] / 2 - driver.execute_script("return scrollY"),
        )

        def touch(kind, *points):
            points = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(points)]
            driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        before = sheet(driver)
        touch("touchStart", (x - 20, y), (x + 20, y))
        touch("touchMove", (x - 60, y), (x + 60, y))
        touch("touchEnd")
        enlarged = sheet(driver)
        assert enlarged[2] == pytest.approx(3 * before[2], rel=0.05)
        touch("touchStart", (x, y))
        touch("touchMove", (x + 25, y))
        touch("touchEnd")
        assert sheet(driver)[0] == pytest.approx(enlarged[0] + 25, abs=2)
        assert driver.get_log("browser") == []


def downloaded(driver, function):
    return driver.execute_script(f"return {function}()")


def test_the_table_is_handed_out_as_predict_writes_it(opened, films, tmp_path):
    chosen = columns(PROVENANCE)
    names = [film.name.replace("\udcff", "\ufffd" * 3) for film in films]
    with csv_table.writing(tmp_path / "predictions.csv") as table:
        table.row(chosen.header)
        for film, name in zip(films, names, strict=True):
            table.row(chosen.values(film.to_dict() | {"image": name}))
    (tmp_path / "page.csv").write_text(downloaded(opened, "csv"), encoding="utf-8")
    expected, found = (csv_table.read(tmp_path / name) for name in ("predictions.csv", "page.csv"))
    assert len(expected) == len(films) + 1
    for one, other in zip(expected, found, strict=True):
        assert [float(a) if a[:2] in ("0.", "1e") else a for a in one] == [
            float(b) if b[:2] in ("0.", "1e") else b for b in other
        ]
    held = json.loads(downloaded(opened, "json"))
    assert [each["image"] for each in held["images"]] == names
    assert held["made_with"]["checkpoint"] == PROVENANCE.checkpoint
    assert held["images"][0]["findings"]["Mass"]["calibrated"] == 0.125


def test_a_name_that_a_spreadsheet_would_run_is_harmless_in_the_table(browser, tmp_path):
    names = ["=1+2.png", "'=a", 'quo"te,.png', "line\nend.png", "\\udc41.png", "\uff1dx", "plain.png"]
    film_page.write(tmp_path / "page.html", PROVENANCE, [film_page.entry(reading(name)) for name in names])
    browser.get((tmp_path / "page.html").as_uri())
    (tmp_path / "page.csv").write_text(downloaded(browser, "csv"), encoding="utf-8")
    assert [row[0] for row in csv_table.read(tmp_path / "page.csv")[1:]] == names
    with (tmp_path / "page.csv").open(newline="", encoding="utf-8") as file:
        assert [row[0] for row in csv.reader(file)][1:3] == ["'=1+2.png", "''=a"]


@pytest.mark.parametrize("button", ["csv", "json"])
def test_the_button_saves_a_file(page, tmp_path, button):
    with chromium() as driver:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
        driver.get(page)
        driver.find_element("id", button).click()
        for _ in range(300):
            if (tmp_path / f"findings.{button}").exists():
                break
            time.sleep(0.1)
        assert (
            (tmp_path / f"findings.{button}")
            .read_text(encoding="utf-8")
            .startswith({"csv": "image,", "json": "{"}[button])
        )
        assert driver.get_log("browser") == []


def test_findings_of_a_film_that_is_flagged_are_shown_to_whoever_asks(opened, films):
    press(opened, "j")
    assert films[1].flags[0] == "not_frontal_chest"
    assert not opened.find_element("id", "all").is_displayed()
    assert FLAGS["not_frontal_chest"] in opened.find_element("id", "why-withheld").text
    assert opened.find_element("css selector", "[aria-current] .sorted").text == "findings withheld"
    press(opened, Keys.ARROW_DOWN)
    assert (state(opened)["finding"], state(opened)["heatmap"]) == (None, False)
    opened.find_element("id", "anyway").click()
    assert opened.find_element("id", "all").is_displayed()
    assert len([each for each in opened.find_elements("class name", "finding") if each.is_displayed()]) == 14
    press(opened, "j", "k")
    assert opened.find_element("id", "all").is_displayed()  # asked for once


def test_the_spread_of_an_ensemble_is_next_to_each_probability(browser, tmp_path):
    members = tuple({"seed": seed, "checkpoint": f"{seed}" * 8} for seed in range(5))
    provenance = dataclasses.replace(PROVENANCE, members=members)
    spread = {name: 0.001 * (index + 12) for index, name in enumerate(FINDINGS)}
    film = reading("a.png", spread=spread, provenance=provenance)
    film_page.write(tmp_path / "page.html", provenance, [film_page.entry(film)])
    browser.get((tmp_path / "page.html").as_uri())
    all_of = "return [...document.querySelectorAll('.finding {}')].map((each) => each.{})"
    numbers = browser.execute_script(all_of.format("input", "value"))
    texts = browser.execute_script(all_of.format(".value", "textContent"))
    rows = dict(zip(numbers, texts, strict=True))
    for index, name in enumerate(FINDINGS):
        assert rows[str(index)] == f"{film.probabilities[name]:.3f}±{spread[name]:.3f}"
    widths = (browser.execute_script(all_of.format("> *", width)) for width in ("scrollWidth", "clientWidth"))
    assert all(content <= room + 1 for content, room in zip(*widths, strict=True))
    browser.execute_script("document.querySelector('.finding input').click()")
    said = browser.execute_script("return document.getElementById('detail').textContent")
    assert "Mean of 5 networks, standard deviation 0.0" in said
    assert "Ensemble, seed 4" in (tmp_path / "page.html").read_text()
    held = json.loads(downloaded(browser, "json"))
    assert held["images"][0]["findings"]["Mass"]["spread"] == spread["Mass"]


def test_a_page_without_a_classifier_shows_the_lungs_and_says_how_to_get_one(browser, tmp_path):
    provenance = dataclasses.replace(
        PROVENANCE, stage=None, checkpoint=None, findings=(), thresholds={}, undecided={}, calibrated=(), validation={}
    )
    nothing = {"probabilities": {}, "calibrated": {}, "maps": {}, "provenance": provenance}
    films = [
        reading("a.png", confidence=0.98, **nothing),
        reading("b.png", confidence=0.81, flags=("inverted",), **nothing),
    ]
    film_page.write(tmp_path / "page.html", provenance, map(film_page.entry, films))
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.title == "Lungs on 2 radiographs"
    header = browser.find_element("tag name", "header").text
    assert "There are no findings" in header and "sdfn train --config=configs/fusion.py" in header
    assert not browser.find_element("id", "findings").is_displayed()
    assert not browser.find_element("id", "withheld").is_displayed()
    assert browser.find_element("id", "outline").get_attribute("d") == "M30 24 60 24 40 48Z"
    assert "confidence 0.980" in browser.find_element("id", "lungs").text
    browser.find_element("css selector", "#sort option[value=confidence]").click()
    assert names_listed(browser) == ["b.png", "a.png"]
    assert (state(browser)["film"], state(browser)["heatmap"]) == ("b.png", False)
    browser.execute_script("document.activeElement.blur()")
    press(browser, "o")
    assert not browser.find_element("id", "outline-on").is_selected()
    rows = list(csv.reader(io.StringIO(downloaded(browser, "csv"))))
    assert rows[0][-1] == "findings" and rows[1][-1] == "none: no classifier was given"
    assert not any("Mass" in name for name in rows[0])
    assert browser.get_log("browser") == []


def test_everything_can_be_done_from_the_keyboard(opened, films):
    first, second = state(opened), films[1].name
    assert (first["film"], first["heatmap"], first["box"]) == ("films/first.png", False, True)
    press(opened, Keys.ARROW_DOWN)
    first = state(opened)
    assert (first["heatmap"], first["box"]) == (True, True)
    press(opened, "h", "b")
    assert (state(opened)["heatmap"], state(opened)["box"]) == (False, False)
    press(opened, "h", "b", "k")  # no film before the first
    assert state(opened) == first
    opened.execute_script("films[1].anyway = true")
    press(opened, "j")
    assert state(opened)["film"] == second
    press(opened, Keys.ARROW_LEFT, Keys.ARROW_RIGHT)
    assert state(opened)["film"] == second
    order = order_of(films[1])
    press(opened, Keys.ESCAPE, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert state(opened)["finding"] == display_name(FINDINGS[order[1]])
    focused = opened.switch_to.active_element
    assert focused.get_property("value") == str(order[1])
    assert focused.find_element("xpath", "..").value_of_css_property("outline-width") == "3px"  # it can be seen
    press(opened, Keys.ARROW_RIGHT)  # what was chosen stays chosen on the next film
    assert state(opened)["finding"] == display_name(FINDINGS[order[1]])
    press(opened, "?")
    assert state(opened)["keys"]
    press(opened, Keys.ESCAPE)
    assert not state(opened)["keys"]
    before = state(opened)
    opened.find_element("id", "search").send_keys("hbj")  # letters typed there are no shortcuts
    assert state(opened) == before
    assert names_listed(opened) == []


def test_films_are_found_by_name_flag_decision_and_probability(opened, films):
    def select(menu, value):
        opened.find_element("css selector", f"#{menu} option[value='{value}']").click()

    given = [film.name.rsplit("/", 1)[-1] for film in films]
    assert len(names_listed(opened)) == len(films)
    assert names_listed(opened)[:7] == given[:7]
    select("filter", "flagged")
    assert names_listed(opened) == ["large.png", "lung.png"]
    select("filter", "flag:border")
    assert names_listed(opened) == ["large.png"]
    mass = FINDINGS.index("Mass")
    select("filter", f"positive:{mass}")
    trusted = [film for film in films if film.name not in ("films/large.png", "films/lung.png")]
    assert len(names_listed(opened)) == sum(film.probabilities["Mass"] >= POINT for film in trusted)
    select("filter", "all")
    select("sort", mass)
    highest = max(trusted, key=lambda film: film.probabilities["Mass"])
    assert (state(opened)["film"], state(opened)["finding"]) == (highest.name, "Mass")
    said = opened.find_element("css selector", "#thumbnails .sorted").text
    assert said.split() == ["Mass", f"{highest.probabilities['Mass']:.2f}"]
    opened.find_element("id", "search").send_keys("LARGE")
    assert names_listed(opened) == ["large.png"]
    assert "1 of 10 films" in opened.find_element("css selector", "#filters summary").text


def test_names_are_text_whatever_they_hold(opened, films):
    shown = [name.replace("\udcff", "\ufffd" * 3) for name in HOSTILE]  # a byte that is no UTF-8
    buttons = {each.get_attribute("title"): each for each in opened.find_elements("css selector", "#thumbnails button")}
    for name in shown:
        buttons[name].click()
        assert state(opened)["film"] == name
        assert opened.execute_script("return window.taken") is None
    assert opened.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert opened.execute_script("return [...document.scripts].filter(e => !e.type).length") == 1


def test_what_looks_wrong_and_what_was_corrected_is_said(opened, films):
    assert opened.find_element("id", "flags").text == ""
    press(opened, "j")
    assert opened.find_element("id", "flags").text.split("\n") == [
        *(FLAGS[flag] for flag in films[1].flags),
        f"Corrected as asked: {FIXES['inverted']}",
    ]
    assert not opened.find_elements("css selector", "#flags button")  # a page from disk reads nothing again
    marks = [each.text for each in opened.find_elements("class name", "flagged")]
    assert marks == ["⚑ 2 flags", "⚑ inverted"]
    said = opened.find_element("id", "lungs").text
    left, top, right, bottom = films[1].lung_box
    assert f"columns {left} to {right}, rows {top} to {bottom} of 1700 × 1300 pixels" in said
    assert "two nearest the centre were kept; the one region was mirrored" in said


def test_the_strength_is_the_opacity_and_the_scale_follows(opened):
    def opacities():
        return [opened.find_element("id", name).value_of_css_property("opacity") for name in ("heatmap", "scale")]

    opened.execute_script("choose(0)")
    assert opacities() == [str(palette.HEATMAP_STRENGTH)] * 2  # as on the pages of heatmaps
    opened.find_element("id", "strength").send_keys(Keys.HOME)
    assert opacities() == ["0", "0"]
    assert opened.find_element("id", "strength-said").text == "0 %"


@pytest.mark.parametrize("kind", ["desktop", "phone", "dark"])
def test_the_page_fits_every_screen(page, kind):
    with chromium(kind) as driver:
        driver.get(page)
        for _ in range(3):
            shown = driver.execute_script(
                "const box = id => document.getElementById(id).getBoundingClientRect();"
                "if (finding === null) choose(0);"
                "const list = document.getElementById('thumbnails');"
                "return {page: document.documentElement.scrollWidth, window: window.innerWidth,"
                " requests: performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length,"
                " list: list.scrollWidth - list.clientWidth,"
                " stage: box('stage').width, bottom: box('stage').bottom, height: window.innerHeight,"
                " findings: box('list').bottom,"
                " text: Math.min(...[...document.querySelectorAll('p, small, span, td')]"
                "   .map(e => parseFloat(getComputedStyle(e).fontSize))),"
                " targets: [...document.querySelectorAll('.finding, .title button, .controls label')]"
                "   .map(e => e.getBoundingClientRect().height).filter(h => h > 0),"
                " ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor}"
            )
            assert shown["page"] == shown["window"]
            assert kind == "phone" or shown["list"] == 0  # a grid; on a phone a strip that scrolls sideways
            assert shown["requests"] == 0
            assert shown["stage"] > (350 if kind == "phone" else 600)
            assert kind == "phone" or shown["findings"] <= shown["height"]  # all 14 are on the first screen
            assert shown["bottom"] <= shown["height"]  # all of the film is on the first screen
            assert shown["text"] >= 11.9
            assert min(shown["targets"]) >= (44 if kind == "phone" else 30)
            brightness = [sum(map(float, colour[4:-1].split(","))) / 3 for colour in (shown["ink"], shown["paper"])]
            dark = brightness[0] > 200 and brightness[1] < 60
            assert dark if kind == "dark" else brightness[0] < 60 < 200 < brightness[1]
            press(driver, "j")
        driver.execute_script("scrollTo(0, 60)")
        press(driver, *"jjjj")
        assert driver.execute_script("return scrollY") == 60  # only the list of films scrolls along
        item, films = (driver.find_element("css selector", at).rect for at in ("[aria-current]", "#thumbnails"))
        for start, length in (("x", "width"), ("y", "height")):  # in view, but for rounding
            assert item[start] >= films[start] - 1
            assert item[start] + item[length] <= films[start] + films[length] + 1
        assert "For research, not for diagnosis" in driver.find_element("tag name", "header").text
        assert driver.get_log("browser") == []


def test_500_films_on_one_page(browser, tmp_path):
    """As many, each as large, as a real page has; only the film on show is decoded."""
    noise = np.random.default_rng(0).integers(100, 112, (1024, 1024), dtype=np.uint8)
    film = film_page.entry(reading(radiograph=noise, lung_box=(100, 100, 900, 900)))
    film_page.write(tmp_path / "page.html", PROVENANCE, (film | {"name": f"{n:03}.png"} for n in range(500)))
    assert (tmp_path / "page.html").stat().st_size > 40_000_000  # 500 films of ChestX-ray14: 46 MB
    browser.get((tmp_path / "page.html").as_uri())
    assert len(names_listed(browser)) == 500
    heap = []
    for _ in range(3):
        press(browser, *"jjjjjjjjjj")
        browser.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        heap.append(browser.execute_script("return performance.memory.usedJSHeapSize"))
    assert state(browser)["film"] == "030.png"
    assert browser.execute_script("return [...document.images].filter(e => e.naturalWidth > 128).length") == 1
    assert heap[2] - heap[0] < 5_000_000  # not even ten films of 0.1 MB with their maps and pictures
    assert browser.get_log("browser") == []


def test_pages_of_one_prediction_lead_to_each_other(browser, tmp_path):
    folder = tmp_path / "a #folder"
    files = ("index.html", "index_2.html", "index_3.html")
    for number, name in enumerate(files):
        pager = film_page.Pager(files, number, 2 * number + 1, 2 if number < 2 else 1, 5)
        film_page.write(folder / name, PROVENANCE, [film_page.entry(reading(name))], pager)

    def follow(text):
        browser.find_element("link text", text).click()
        return browser.execute_script("return document.querySelector('header nav span').textContent")

    browser.get((folder / files[0]).as_uri())
    assert [each.text for each in browser.find_elements("css selector", "nav a")] == ["Next page"]
    assert follow("Next page") == "Page 2 of 3: films 3 to 4 of 5"
    assert state(browser)["film"] == "index_2.html"
    assert follow("Next page") == "Page 3 of 3: films 5 to 5 of 5"
    assert [each.text for each in browser.find_elements("css selector", "nav a")] == ["Previous page"]
    assert follow("Previous page") == "Page 2 of 3: films 3 to 4 of 5"
    assert browser.get_log("browser") == []


def test_the_page_of_one_film_and_of_a_network_trained_on_synthetic_radiographs(browser, tmp_path):
    provenance = dataclasses.replace(
        PROVENANCE, drawings=True, thresholds={}, undecided=dict.fromkeys(FINDINGS, "few"), lrg_checkpoint=None
    )
    film_page.write(tmp_path / "page.html", provenance, [film_page.entry(reading(provenance=provenance))])
    browser.get((tmp_path / "page.html").as_uri())
    assert film_page.SYNTHETIC in browser.find_element("tag name", "header").text
    assert not browser.find_element("id", "films").is_displayed()
    assert not browser.find_element("id", "next").is_displayed()
    findings = browser.find_element("id", "findings").text
    assert "tive" not in findings  # no operating points: nothing is called
    assert "No decision (14)" in findings
    assert not browser.find_element("id", "points").is_displayed()
    browser.find_element("css selector", "footer summary").click()
    assert "There is no operating point" in browser.find_element("tag name", "footer").text
    assert "none was used" in browser.find_element("tag name", "footer").text
    assert browser.get_log("browser") == []


def test_on_paper_the_whole_film_is_next_to_its_findings_and_nothing_to_click_is_there(opened):
    press(opened, "+", "+")  # enlarged on the screen
    try:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        boxes = opened.execute_script(
            "return Object.fromEntries(['stage', 'sheet', 'findings', 'films', 'downloads', 'csv', 'zoom', 'gestures']"
            ".map(name => [name, document.getElementById(name).getBoundingClientRect().toJSON()]))"
        )
        made = opened.execute_script("return document.querySelector('footer table').getBoundingClientRect().height")
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        press(opened, "0")
    assert boxes["sheet"] == boxes["stage"]
    assert boxes["findings"]["left"] >= boxes["stage"]["right"]
    assert boxes["findings"]["top"] <= boxes["stage"]["bottom"]
    assert made > 40
    for name in ("films", "downloads", "csv", "zoom", "gestures"):
        assert boxes[name]["width"] == 0


def test_the_page_of_a_network_that_looks_for_one_finding(browser, tmp_path):
    name = "Tuberculosis"
    provenance = dataclasses.replace(
        PROVENANCE,
        findings=(name,),
        thresholds={name: PROVENANCE.thresholds["Mass"]},
        undecided={},
        calibrated=(),
        validation={name: PROVENANCE.validation["Mass"]},
    )
    maps = {branch: each[..., :1] for branch, each in reading().maps.items()}
    films = [
        reading(each, probabilities={name: value}, calibrated={name: None}, maps=maps, provenance=provenance)
        for each, value in (("a.png", 0.9), ("b.png", 0.1))
    ]
    film_page.write(tmp_path / "page.html", provenance, map(film_page.entry, films))
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.find_element("id", "heatmap").is_displayed()  # there is no other to choose
    thumbnails = [" ".join(each.text.split()) for each in browser.find_elements("css selector", "#thumbnails button")]
    assert thumbnails == ["a.png positive 0.90", "b.png negative 0.10"]
    findings = browser.find_element("id", "findings").text
    assert "Positive\n" in findings and "(1)" not in findings and "Choose" not in findings
    assert [each.text for each in browser.find_elements("css selector", "#sort option")][-1] == f"by {name}"
    assert browser.get_log("browser") == []
