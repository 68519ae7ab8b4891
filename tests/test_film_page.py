import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from sdfn_jax import film_page
from tests.readings import PROVENANCE, reading


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
    assert held["probabilities"] == film.probabilities.tolist()
    assert held["calibrated"] == [None] * 4 + [0.125, 0.25] + [None] * 8
    for view, maps in film.maps.items():
        kept = held["picture"]["maps"][view]
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
    assert film_page.DRAWINGS not in text
