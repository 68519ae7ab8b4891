"""Decoding in separate processes, with decoders that hang, crash or print on request."""

import threading

import numpy as np
import pytest

from sdfn_jax.core.errors import MissingPackageError
from sdfn_jax.inference import decoding
from sdfn_jax.radiographs import reader
from tests import dicom_files
from tests.picture_bytes import encoded

GREY = np.random.default_rng(0).integers(0, 256, (30, 50)).astype(np.uint8)
CHILD = """
import os, time
import numpy as np
from sdfn_jax.core import errors
from sdfn_jax.inference import decoding
from sdfn_jax.radiographs import reader

def user_error():
    raise errors.MissingPackageError("install more")

def mistake():
    raise KeyError("a name")

decode = reader.decode_with_flags
bad = {
    b"slow": lambda: time.sleep(1000),
    b"crash": os.abort,
    b"talk": lambda: os.write(1, b"I am a film") and (np.zeros((2, 3), np.uint8), ()),
    b"huge": lambda: np.zeros(decoding.MEMORY_LIMIT, np.uint8),
    b"flags": lambda: (np.zeros((2, 3), np.uint8), ("a_name", "border")),
    b"package": user_error,
    b"mistake": mistake,
}
reader.decode_with_flags = lambda data, suffix: bad[data]() if data in bad else decode(data, suffix)
decoding.work()
"""


@pytest.fixture
def decoders():
    with decoding.Decoders() as decoders:
        yield decoders


@pytest.fixture
def misled(monkeypatch):
    """Decoders of a child that misbehaves; each takes at most 3 s a film."""
    monkeypatch.setattr(decoding, "_COMMAND", CHILD)
    with decoding.Decoders(time_limit=3) as decoders:
        yield decoders


def test_films_are_decoded_as_here(decoders):
    for kind in ("PNG", "JPEG", "TIFF"):
        data = encoded(GREY, kind)
        read, flags = decoders.decode(data, ".xyz")
        assert flags == ()
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, reader.decode(data))


def test_flags_come_along_and_none_that_there_are_not(decoders, misled, tmp_path):
    data = dicom_files.write(tmp_path / "a.dcm", GREY, NumberOfFrames=0, WindowCenter=0, WindowWidth=0).read_bytes()
    read, flags = decoders.decode(data)
    assert flags == ("dicom_window", "dicom_frames")
    np.testing.assert_array_equal(read, GREY)
    assert misled.decode(b"flags")[1] == ("border",)


def test_what_is_refused_is_refused_in_the_same_words(decoders):
    for data, suffix in ((b"dear diary", ""), (b"dear diary", ".img"), (b"", ".dcm"), (encoded(GREY, "PNG")[:-40], "")):
        with pytest.raises(ValueError) as here:
            reader.decode(data, suffix)
        with pytest.raises(ValueError) as there:
            decoders.decode(data, suffix)
        assert str(there.value) == str(here.value)


@pytest.mark.parametrize(
    ("film", "told"),
    [
        (b"slow", "takes longer than 3 s to decode, and was stopped"),
        (b"crash", r"cannot be decoded \(the decoder ended with status -6\)"),
        (b"huge", r"cannot be decoded \(the decoder ended with status 1\)"),
        (b"mistake", r"cannot be decoded \(the decoder ended with status 1\)"),
    ],
)
def test_a_film_that_crashes_the_decoder_affects_no_other(misled, film, told):
    with pytest.raises(ValueError, match=told):
        misled.decode(film)
    np.testing.assert_array_equal(misled.decode(encoded(GREY, "PNG"))[0], GREY)


def test_the_time_of_a_film_begins_when_its_decoder_is_ready(monkeypatch):
    monkeypatch.setattr(decoding, "_COMMAND", f"import time; time.sleep(2); {decoding._COMMAND}")
    with decoding.Decoders(time_limit=1.5) as decoders:
        np.testing.assert_array_equal(decoders.decode(encoded(GREY, "PNG"))[0], GREY)


def test_a_decoder_that_never_starts_is_given_up(monkeypatch):
    monkeypatch.setattr(decoding, "_COMMAND", "import time; time.sleep(1000)")
    monkeypatch.setattr(decoding, "_START_LIMIT", 0.5)
    with decoding.Decoders() as decoders, pytest.raises(ValueError, match="the decoder did not start within 0.5 s"):
        decoders.decode(encoded(GREY, "PNG"))


def test_what_a_decoder_prints_is_no_answer(misled):
    np.testing.assert_array_equal(misled.decode(b"talk")[0], np.zeros((2, 3)))


def test_a_missing_package_stays_the_users_to_mend(misled):
    with pytest.raises(MissingPackageError, match="install more"):
        misled.decode(b"package")


def test_others_are_decoded_meanwhile_and_the_end_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(decoding, "_COMMAND", CHILD)
    told = []

    def slow():
        try:
            decoders.decode(b"slow")
        except ValueError as error:
            told.append(str(error))

    with decoding.Decoders(time_limit=1000) as decoders:
        threads = [threading.Thread(target=slow) for _ in range(decoding.PROCESSES - 1)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            np.testing.assert_array_equal(decoders.decode(encoded(GREY, "PNG"))[0], GREY)
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert len(told) == decoding.PROCESSES - 1
    with pytest.raises(ValueError, match="the viewer is being stopped"):
        decoders.decode(encoded(GREY, "PNG"))
