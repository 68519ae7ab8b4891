"""Weights that a library publishes: from the cache, or downloaded into it.

`requests` carries the transfer (proxies and certificates from the environment). Pooch, which others wrap around it, was
considered: it restarts from zero after a broken connection, and checks only whole hashes; PyTorch publishes the
first digits of the SHA-256, in the file's name, and `torch.hub` checks those.
"""

import dataclasses
from pathlib import Path

import requests

from sdfn_jax.core import progress
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import CACHE_VARIABLE, cache_folder, file_digest


@dataclasses.dataclass(frozen=True)
class Published:
    """A file of weights that a library publishes.

    Attributes:
      url: of the file.
      sha256_start: the first digits, or all, of its SHA-256 in hexadecimal.
    """

    url: str
    sha256_start: str

    def cached_file(self) -> Path:
        """Returns the path of its download, there or not."""
        return cache_folder() / self.url.rsplit("/", 1)[1]

    def fetch(self) -> Path:
        """Returns the path of the file, downloading it if it is not in the cache.

        An interrupted download resumes, in this call or a later one.

        Raises:
          UserError: if it cannot be downloaded, naming what to fetch, from where, and where to put it; or if its hash
            differs from the published one.
        """
        path = self.cached_file()
        if path.is_file():
            _check_hash(path, self.sha256_start, f"delete {path} to have it downloaded again")
            return path
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(self.url, part)
        except (requests.RequestException, OSError) as error:
            raise UserError(
                f"{self.url} cannot be downloaded ({_reason(error)}). What has arrived is kept, and the same command "
                f"resumes. Without a connection: fetch that file elsewhere (its SHA-256 begins with "
                f"{self.sha256_start}) and put it at {path}; the environment variable {CACHE_VARIABLE} names another "
                "folder"
            ) from error
        try:
            _check_hash(part, self.sha256_start, "the download was discarded; try again, or fetch the file elsewhere")
        except UserError:
            part.unlink()
            raise
        part.replace(path)
        return path


_ATTEMPTS = 5  # consecutive connections without new data
_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 18


def _download(url: str, part: Path) -> None:
    """Downloads a file to `part`, resuming from what is there; connections may break in between."""
    attempts = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _continue(url, part, before)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            moved = part.exists() and part.stat().st_size > before
            attempts = 0 if moved else attempts + 1
            if attempts == _ATTEMPTS:
                raise


def _continue(url: str, part: Path, have: int) -> None:
    # "identity": compression by the server would change the lengths.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if have and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to download; the hash decides
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        start = have if resumed else 0  # a server without ranges sends it from the beginning
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            progress.bar(what=f"download {part.stem}", unit="byte", total=total, initial=start) as bar,
        ):
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def _check_hash(path: Path, sha256_start: str, advice: str) -> None:
    found = file_digest(path)
    if not found.startswith(sha256_start):
        raise UserError(f"{path} is not the published file: its SHA-256 is {found}, not {sha256_start}...; {advice}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
