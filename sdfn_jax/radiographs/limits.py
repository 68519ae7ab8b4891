"""How large a radiograph and its file may be, and what is said of one that is refused."""

# What an image may have. Today's detectors have a quarter of it; decoding one of this size as DICOM takes some 2 GiB.
MAX_PIXELS = 2**26
# What a file may have: 8 bytes for each of so many pixels.
MAX_BYTES = 8 * MAX_PIXELS


class Refused(ValueError):
    """What is wrong with a file or an array, in one line of our own words: it quotes nothing of the file."""


def check_size(size: tuple[int, int]) -> None:
    """Refuses an image without pixels, and one so large that decoding it could take all memory.

    Args:
      size: (height, width), as its header says.

    Raises:
      Refused: for what is refused.
    """
    height, width = size
    if height <= 0 or width <= 0:
        raise Refused(f"{height} x {width} pixels: no image")
    if height * width > MAX_PIXELS:
        raise Refused(f"{height:,} x {width:,} pixels, more than the {MAX_PIXELS:,} that are read")
