"""JPEG, PNG, GIF and TIFF files that no library writes: made of their pieces."""

import io
import re
import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    """What Pillow writes."""
    data = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(data, kind, **options)
    return data.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def deep_png(pixels: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits per channel, (H, W) or (H, W, C) uint16."""
    height, width = pixels.shape[:2]
    header = struct.pack(">LLBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def with_chunks(png: bytes, chunks: Iterable[bytes]) -> bytes:
    """A PNG with more chunks after its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def with_scans(jpeg: bytes, number: int) -> bytes:
    """A progressive JPEG whose last scan is there so many times more."""
    last = [found.start() for found in re.finditer(rb"\xff\xda", jpeg)][-1]
    return jpeg[:-2] + jpeg[last:-2] * number + jpeg[-2:]


def with_segments(jpeg: bytes, segments: Iterable[bytes]) -> bytes:
    """A JPEG with more segments, each without its length, at its beginning."""
    return jpeg[:2] + b"".join(each[:2] + struct.pack(">H", len(each)) + each[2:] for each in segments) + jpeg[2:]


def directory(fields: Sequence[tuple[int, int, int, int]]) -> bytes:
    """A little-endian TIFF that is nothing but a directory of (tag, type, count, value or offset)."""
    body = b"".join(struct.pack("<HHLL", *field) for field in fields)
    return struct.pack("<2sHLH", b"II", 42, 8, len(fields)) + body + bytes(4)
