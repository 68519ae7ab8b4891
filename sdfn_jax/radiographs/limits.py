"""The largest radiograph and file that are read, and the error for those that are refused."""

# Pixels of an image. Today's detectors have a quarter of it; decoding a DICOM image of this size takes some 2 GiB.
MAX_PIXELS = 2**26
# Bytes of a file: 8 for each pixel.
MAX_BYTES = 8 * MAX_PIXELS


class Refused(ValueError):
    """A file or array that is refused, with one line that says why and quotes nothing of the file."""


def check_size(size: tuple[int, int]) -> None:
    """Refuses an image without pixels, or one so large that decoding could exhaust memory.

    Args:
      size: (height, width), as its header says.

    Raises:
      Refused: for such an image.
    """
    height, width = size
    if height <= 0 or width <= 0:
        raise Refused(f"{height} x {width} pixels: an empty image")
    if height * width > MAX_PIXELS:
        raise Refused(f"{height:,} x {width:,} pixels, more than the {MAX_PIXELS:,} that are read")
