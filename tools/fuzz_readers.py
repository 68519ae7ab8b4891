"""Reads damaged and hostile DICOM, PNG, JPEG, TIFF, BMP, GIF and .IMG files by the thousand.

python -m tools.fuzz_readers --files=6000 --seed=0 [--first=0]

It lists what was not refused well. Each file is made from a good one by the seed and its number alone, so any can be
made again. A separate process reads them, so that a decoder's crash is noticed, and one that takes too long is killed.
Good is an (H, W) uint8 image, or a ValueError or OSError of one line that names the file; everything else is a defect:
another exception, a warning, words on the screen, a hang, a crash, memory that grows.
"""

import argparse
import io
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file

SCRIPT = Path(__file__).resolve()
ROOT = SCRIPT.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from dicom_files import lut, write  # noqa: E402
from picture_bytes import (  # noqa: E402
    COLOUR,
    COLOUR_ALPHA,
    GREY_ALPHA,
    chunk,
    deep_png,
    directory,
    with_chunks,
    with_scans,
    with_segments,
)

from sdfn_jax.radiographs import reader as radiographs_reader  # noqa: E402

# Seconds per file; far more than any took.
TIME_LIMIT = 20
# Bytes for the reading process: reading a good file of the largest size allowed would take less.
MEMORY_LIMIT = 8 * 2**30
# The reading process may grow by so many bytes over its files, .IMG files of 8 MiB among them, after the first of them.
GROWTH_LIMIT = 200 * 2**20
_LENGTHS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def good_files() -> list[tuple[str, bytes]]:
    """Returns (suffix, content) of the files that are damaged: every format and coding, small."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :48]
    grey = np.clip(128 + 90 * np.sin(x / 7) + 60 * np.cos(y / 5) + rng.integers(-9, 9, x.shape), 0, 255).astype(
        np.uint8
    )
    deep = grey * np.uint16(16)
    files = []

    def add(image: Image.Image, suffix: str, **options) -> None:
        buffer = io.BytesIO()
        image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **options)
        files.append((suffix, buffer.getvalue()))

    for mode in ("L", "RGB", "RGBA", "LA", "P", "1"):
        add(Image.fromarray(grey).convert(mode), "png")
    add(Image.fromarray(deep), "png")
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            add(Image.fromarray(grey).convert(mode), "jpg", progressive=progressive)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(Image.fromarray(grey), "tif", compression=compression)
        if compression != "jpeg":
            add(Image.fromarray(deep), "tif", compression=compression)
    for kind in (np.float32, np.int32):
        add(Image.fromarray(deep.astype(kind)), "tif")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, deep, photometric="miniswhite", tile=(16, 16))
    files.append(("tif", buffer.getvalue()))
    for mode in ("L", "RGB"):
        add(Image.fromarray(grey).convert(mode), "bmp")
    add(Image.fromarray(grey), "gif")
    colours = np.stack([deep] * 3 + [np.where(grey > 60, 65535, 0).astype(np.uint16)], axis=-1)
    for channels, colour in ((colours[..., :3], COLOUR), (colours[..., 2:], GREY_ALPHA), (colours, COLOUR_ALPHA)):
        files.append(("png", deep_png(channels, colour)))
    for planes in ("contig", "separate"):
        buffer = io.BytesIO()
        turned = colours[..., :3] if planes == "contig" else np.moveaxis(colours[..., :3], -1, 0)
        tifffile.imwrite(buffer, turned, photometric="rgb", planarconfig=planes, compression="zlib")
        files.append(("tif", buffer.getvalue()))
    exif = Image.Exif()
    exif[274] = 6
    for suffix in ("jpg", "png"):
        add(Image.fromarray(grey), suffix, exif=exif)
    add(Image.fromarray(grey).convert("P"), "gif", transparency=3, comment=b"no name")
    files.append(("img", bytes(rng.integers(0, 16, 8 * 2**20, dtype=np.uint8))))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless):
            for pixels, photometric in ((grey, "MONOCHROME2"), (deep, "MONOCHROME1")):
                files.append(("dcm", write(path, pixels, syntax=syntax, photometric=photometric).read_bytes()))
        for syntax in (uid.JPEGBaseline8Bit, uid.JPEGLossless):
            files.append(("dcm", write(path, grey, syntax=syntax).read_bytes()))
        for elements in (
            {"WindowCenter": [2000, 1000], "WindowWidth": [3000, 1], "VOILUTFunction": "SIGMOID"},
            {"RescaleSlope": 2, "RescaleIntercept": -1024, "PixelPaddingValue": 0, "PresentationLUTShape": "INVERSE"},
            {"VOILUTSequence": lut(range(4096), bits=12), "ModalityLUTSequence": lut(range(4096), bits=12)},
        ):
            files.append(("dcm", write(path, deep, bits=12, **elements).read_bytes()))
    folder = Path(get_testdata_file("CT_small.dcm", download=False)).parent
    small = sorted(path for path in folder.glob("*.dcm") if path.stat().st_size < 100_000)
    refused = [path for path in small if read_one(path) != "read"]
    kept = set(small) - set(refused) | set(refused[::8])
    return files + [("dcm", path.read_bytes()) for path in small if path in kept]


def damage(content: bytes, other: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Returns a file damaged in one to three ways, and their names."""
    data = bytearray(content)
    ways = []
    for _ in range(rng.integers(1, 4)):
        way = ("flips", "cut", "length", "header", "splice", "repeat", "drop", "work")[rng.integers(8)]
        ways.append(way)
        size = max(len(data), 1)
        place = int(rng.integers(size))
        early = int(rng.integers(min(size, 2048)))
        span = int(rng.integers(1, 200))
        if way == "flips":
            for spot in rng.integers(size, size=rng.integers(1, 20)):
                data[spot : spot + 1] = bytes([rng.integers(256)])
        elif way == "cut":
            del data[place:]
        elif way == "length":
            width = int(rng.choice((1, 2, 4)))
            value = _LENGTHS[rng.integers(len(_LENGTHS))] % 2 ** (8 * width)
            data[early : early + width] = value.to_bytes(width, ("little", "big")[rng.integers(2)])
        elif way == "header":
            data[early : early + 4] = rng.integers(0, 256, 4, dtype=np.uint8).tobytes()
        elif way == "splice":
            start = int(rng.integers(max(len(other), 1)))
            data[place:] = other[start:]
        elif way == "repeat":
            data[place:place] = data[place : place + span]
        elif way == "work":
            data = bytearray(more_work(bytes(data), rng))
        else:
            del data[place : place + span]
    if data[:4] == b"\x89PNG" and rng.integers(2):
        data = _with_checksums(bytes(data))
        ways.append("checksums")
    return bytes(data), "+".join(ways)


def more_work(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns a picture that would keep a decoder busy: pieces that it has to look at, by the thousand."""
    number = int(rng.integers(10, 20000))
    if data.startswith(b"\x89PNG"):
        body = zlib.compress(bytes(int(rng.integers(2**20))), 9)
        kinds = (chunk(b"zTXt", b"a\0\0" + body), chunk(b"iCCP", b"a\0\0" + body), chunk(b"IDAT", b""))
        return with_chunks(data, [kinds[rng.integers(3)]] * number)
    if data.startswith(b"\xff\xd8"):
        if rng.integers(2) and b"\xff\xda" in data:
            return with_scans(data, number // 20)
        return with_segments(data, [b"\xff" + bytes(rng.integers(0xE0, 0xFF, 1, np.uint8)) + bytes(100)] * number)
    if data.startswith(b"GIF8"):
        return data[:13] + b"!\xfe" + (b"\xff" + bytes(range(255))) * number + b"\0" + data[13:]
    if data.startswith((b"II*", b"MM\0")):
        fields = [(int(tag), int(rng.integers(1, 14)), 2**16, 8) for tag in rng.integers(256, 2**16, number)]
        return directory(fields[: 2**16 - 1]) + data
    return data + data[:200] * number


def _with_checksums(png: bytes) -> bytes:
    """Repairs a PNG's checksums, so that the damage behind them is reached."""
    repaired, place = bytearray(png), 8
    while place + 12 <= len(png):
        length = int.from_bytes(png[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(png):
            break
        repaired[end : end + 4] = zlib.crc32(png[place + 4 : end]).to_bytes(4)
        place = end + 4
    return bytes(repaired)


def make(number: int, seed: int, files: list[tuple[str, bytes]]) -> tuple[str, bytes, str]:
    """Returns name, content and ways of damage of the file of this number."""
    rng = np.random.default_rng((seed, number))
    suffix, content = files[number % len(files)]
    data, ways = damage(content, files[rng.integers(len(files))][1][: 2**20], rng)
    return f"{number}.{suffix}", data, ways


def read_one(path: Path) -> str:
    """Returns `read`, `refused`, or what is wrong with how it was refused."""
    try:
        film = radiographs_reader.read_radiograph(path)
    except (ValueError, OSError) as error:
        text = str(error)
        if type(error) is not ValueError and not isinstance(error, OSError):
            return f"raised a {type(error).__name__}"
        return "refused" if str(path) in text and "\n" not in text else f"refused badly: {text!r}"
    except BaseException:
        return traceback.format_exc()
    good = isinstance(film, np.ndarray) and film.ndim == 2 and film.dtype == np.uint8 and film.size > 0
    return "read" if good else f"returned {film!r}"


def read_all(first: int, last: int, seed: int) -> None:
    """Reads files and prints one line of JSON before and after each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    warnings.simplefilter("error")
    logging.getLogger(radiographs_reader.__name__).setLevel(
        logging.ERROR
    )  # the flags that a film carries, in our own words
    files = good_files()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, last):
            name, data, ways = make(number, seed, files)
            path = Path(folder) / name
            path.write_bytes(data)
            record = {"number": number, "suffix": path.suffix, "ways": ways}
            print(json.dumps(record), flush=True)
            start, said = time.monotonic(), os.fstat(2).st_size
            outcome = read_one(path)
            taken = time.monotonic() - start
            # libtiff prints what is wrong with a TIFF past Pillow and Python: its own words, not the file's.
            if os.fstat(2).st_size > said and data[:2] not in (b"II", b"MM"):
                outcome = "said something on standard error"
            path.unlink()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            record |= {"outcome": outcome, "seconds": taken, "memory": pages * os.sysconf("SC_PAGE_SIZE")}
            print(json.dumps(record), flush=True)


def run(first: int, last: int, seed: int) -> list[dict]:
    """Has the files of these numbers read; returns a record of each, crashes and hangs among them."""
    records = []
    while first < last:
        said, status = _read_elsewhere(first, last, seed, told := [])
        finished = [record for record in told if "outcome" in record]
        records += finished
        first = finished[-1]["number"] + 1 if finished else first
        if told and "outcome" not in told[-1]:
            records.append(told[-1] | {"outcome": f"ended the process ({status}): {said}"})
            first = told[-1]["number"] + 1
        elif status:
            raise RuntimeError(f"the reading process failed: {said}")
    return records


def _read_elsewhere(first: int, last: int, seed: int, told: list[dict]) -> tuple[str, int]:
    """Reads in another process until its end or a hang; returns what it said on standard error, and its status."""
    command = [sys.executable, "-X", "faulthandler", str(SCRIPT), f"--seed={seed}", f"--read={first}:{last}"]
    with tempfile.TemporaryFile("w+") as lines, tempfile.TemporaryFile("w+") as said:
        reader = subprocess.Popen(command, stdout=lines, stderr=said)
        length, heard = 0, time.monotonic()
        while reader.poll() is None:
            time.sleep(0.02)
            if (now := os.fstat(lines.fileno()).st_size) != length:
                length, heard = now, time.monotonic()
            elif time.monotonic() - heard > TIME_LIMIT:
                reader.kill()
        for stream in (lines, said):
            stream.seek(0)
        told += [json.loads(line) for line in lines]
        return said.read(), reader.returncode


def defects(records: list[dict]) -> list[dict]:
    """Returns the records of what was neither read nor refused well, and one of memory that grew."""
    found = [record for record in records if record["outcome"] not in ("read", "refused")]
    memory = [record["memory"] for record in records if "memory" in record]
    start = len(memory) // 4
    if memory and max(memory[start:]) - max(memory[: start + 1]) > GROWTH_LIMIT:
        found.append(
            {
                "number": 0,
                "suffix": "?",
                "outcome": f"memory grew from {max(memory[: start + 1]):,} to {max(memory[start:]):,} bytes",
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=6000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.read:
        read_all(*map(int, flags.read.split(":")), flags.seed)
        return
    start = time.monotonic()
    records = run(flags.first, flags.first + flags.files, flags.seed)
    print(f"seed {flags.seed}, files {flags.first} to {flags.first + flags.files - 1}, pydicom {pydicom.__version__}")
    for suffix in sorted({record["suffix"] for record in records}):
        told = Counter(record["outcome"] for record in records if record["suffix"] == suffix)
        print(f"  {suffix}: {told['read']} read, {told['refused']} refused, of {sum(told.values())}")
    memory = [record["memory"] // 2**20 for record in records if "memory" in record]
    quarters = [max(part) for part in np.array_split(memory, 4) if len(part)]
    print(f"  slowest {max(record.get('seconds', 0) for record in records):.2f} s; memory by quarter, MiB: {quarters}")
    found = defects(records)
    for record in found:
        print(f"  {record['number']}{record['suffix']}: {' '.join(record['outcome'].splitlines()[-3:])}")
    print(f"  {len(found)} defects; {time.monotonic() - start:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
