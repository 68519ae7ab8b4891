"""Bodies of several parts, `multipart/related` (RFC 2046, RFC 2387), as DICOMweb sends DICOM files (PS3.18, 8.7)."""

import uuid
from collections.abc import Sequence
from email.message import Message

_TYPE = 'multipart/related; type="application/dicom"'
ACCEPTED = f"{_TYPE}; transfer-syntax=*"  # as a file is stored, without decompressing it


def pack(files: Sequence[bytes]) -> tuple[str, bytes]:
    """Returns the Content-Type and the body of a request that sends DICOM files."""
    boundary = uuid.uuid4().hex
    parts = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data + b"\r\n" for data in files]
    return f"{_TYPE}; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


def unpack_one(content_type: str, body: bytes) -> bytes:
    """Returns the only part of a body.

    Raises:
      EOFError: for a body that ends before its last boundary.
      ValueError: for anything else than a body of one part.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/related" or not boundary:
        raise ValueError(f"it answered with {header.get_content_type()}; expected multipart/related")
    delimiter = b"\r\n--" + boundary.encode()
    _, *parts = (b"\r\n" + body).split(delimiter)
    if not parts or not parts[-1].startswith(b"--"):
        raise EOFError("its answer ended in the middle")
    if len(parts) != 2:
        raise ValueError(f"it answered with {len(parts) - 1} files; expected one")
    _, found, data = parts[0].partition(b"\r\n\r\n")
    if not found:
        raise ValueError("it answered with a part without a header")
    return data
