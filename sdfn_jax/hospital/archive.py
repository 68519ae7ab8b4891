"""An archive (PACS) over DICOMweb (PS3.18): searches, fetches films, stores results.

The client is ours, on `requests`, because a film that arrives in half must not pass for one: dicomweb-client 0.61
takes a body without its last boundary for whole, keeps no bound of size or time, and loses an archive's reasons for
declining.

Certificates are always checked; a hospital's own authority is named to `requests`: REQUESTS_CA_BUNDLE=FILE. Redirects
are not followed, as films and credentials could end up elsewhere.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import urllib3

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.terminal import printable
from sdfn_jax.hospital import credentials, multipart
from sdfn_jax.radiographs.limits import MAX_PIXELS

_JSON = "application/dicom+json"
_PAGE = 100  # results of a search at a time
_MOST_BYTES = 2 * MAX_PIXELS + 2**24  # of an answer: pixels of 16 bits, and a header
# Statuses of an archive that may answer otherwise in a while (RFC 9110; RFC 6585).
_LATER = (408, 425, 429, 500, 502, 503, 504)


class NotNow(Exception):
    """The archive did not answer, or not completely; it may later. The message is a phrase after `the archive`."""


class Declined(Exception):
    """The archive answered that it will not. The message is a phrase after `the archive`."""


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long an archive is waited for, in seconds.

    Attributes:
      connect: until it accepts a connection.
      silence: until it sends something, and then something more.
      whole: until an answer is complete.
      pauses: before each repetition of a request that may be repeated.
    """

    connect: float = 10
    silence: float = 60
    whole: float = 600
    pauses: tuple[float, ...] = (1, 2, 4, 8)


class Archive:
    """The DICOMweb service at an address.

    Attributes:
      url: the address, without a slash at its end.
    """

    def __init__(self, flag: str, url: str, patience: Patience):
        """Sets up the client; nothing is asked yet.

        Args:
          flag: that names the archive, for messages; its name in capitals is in those of the variables that hold
            credentials.
          url: `https://...`.
          patience: how long it is waited for.

        Raises:
          UserError: for an address that is not one, or credentials that would be sent unencrypted.
        """
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UserError(f"--{flag}={url}: expected the address of a DICOMweb service, https://HOST/PATH")
        if parts.username or parts.password:
            raise UserError(f"--{flag}: credentials do not belong in an address; {credentials.where(flag)}")
        self._flag, self._patience = flag, patience
        self._session = requests.Session()
        self._session.auth = credentials.find(flag, self.url)

    def studies(self, filters: Mapping[str, str | Sequence[str]]) -> Iterator[dict]:
        """Yields the studies that match, each {tag: {`Value`: ...}} (PS3.18, F.2)."""
        yield from self._search("/studies", filters, "0020000D")

    def series(self, study: str, fields: Sequence[str] = ()) -> list[dict]:
        """Returns the series of a study, none for an unknown one; with further elements of them, by tag or keyword."""
        return list(self._search(f"/studies/{_safe(study)}/series", {"includefield": list(fields)}, "0020000E"))

    def instances(self, study: str, series: str) -> list[dict]:
        """Returns the instances of a series."""
        return list(self._search(f"/studies/{_safe(study)}/series/{_safe(series)}/instances", {}, "00080018"))

    def fetch(self, study: str, series: str, instance: str) -> bytes:
        """Returns an instance as the bytes of a DICOM file, in the transfer syntax in which it is stored.

        Raises:
          NotNow, Declined: see there.
        """
        path = f"/studies/{_safe(study)}/series/{_safe(series)}/instances/{_safe(instance)}"

        def ask() -> bytes:
            status, kind, body = self._ask("GET", path, headers={"Accept": multipart.ACCEPTED})
            self._check(status, body)
            try:
                return multipart.unpack_one(kind, body)
            except EOFError as error:
                raise NotNow(f"did not send all of it: {error}") from None
            except ValueError as error:
                raise Declined(f"sent something else: {error}") from None

        return self._patiently(ask)

    def store(self, study: str, files: Sequence[bytes]) -> dict[str, str]:
        """Sends DICOM files, once: whether they are there afterwards is the caller's question.

        Returns:
          {SOP Instance UID: why it was not stored}, as far as the archive says.

        Raises:
          NotNow, Declined: see there.
        """
        kind, body = multipart.pack(files)
        headers = {"Content-Type": kind, "Accept": _JSON}
        status, _, answer = self._ask("POST", f"/studies/{_safe(study)}", data=body, headers=headers)
        reasons = _failures(answer)
        if status == 409 and reasons:  # none was stored (PS3.18, 10.5.3)
            return reasons
        self._check(status, answer)
        return reasons

    def _search(self, path: str, parameters: Mapping[str, Any], key: str) -> Iterator[dict]:
        """Yields results page by page, each once; an archive that ignores `offset` ends it by sending nothing new."""
        seen: set[str] = set()
        while True:
            page = self._patiently(lambda: self._page(path, parameters, len(seen)))
            new = [each for each in page if value(each, key) not in seen]
            if not new:
                return
            seen.update(value(each, key) for each in new)
            yield from new

    def _page(self, path: str, parameters: Mapping[str, Any], offset: int) -> list[dict]:
        asked = {**parameters, "limit": _PAGE, "offset": offset}
        status, _, body = self._ask("GET", path, params=asked, headers={"Accept": _JSON})
        if status == 204 or (status == 404 and offset == 0 and path != "/studies"):
            return []
        self._check(status, body)
        try:
            found = json.loads(body or b"[]")
        except ValueError:
            raise Declined("answered a search with something else than JSON") from None
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise Declined("answered a search with something else than a list of results")
        return found

    def _patiently(self, ask):
        """Repeats a request that may be repeated."""
        for pause in self._patience.pauses:
            try:
                return ask()
            except NotNow:
                time.sleep(pause)
        return ask()

    def _ask(self, method: str, path: str, **request: Any) -> tuple[int, str, bytes]:
        """Returns (status, Content-Type, body) of a complete answer."""
        deadline = time.monotonic() + self._patience.whole
        request |= {"stream": True, "allow_redirects": False}
        timeout = (self._patience.connect, self._patience.silence)
        with (
            self._naming_errors(),
            self._session.request(method, self.url + path, timeout=timeout, **request) as response,
        ):
            body = bytearray()
            while chunk := response.raw.read1(2**16, decode_content=True):
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise Declined(f"sent more than {_MOST_BYTES:,} bytes")
                if time.monotonic() > deadline:
                    raise NotNow(f"took longer than {self._patience.whole:g} s to answer")
            return response.status_code, response.headers.get("Content-Type", ""), bytes(body)

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
            raise UserError(
                f"--{self._flag}={self.url}: its certificate is not accepted ({_root(error)}). If the hospital has an "
                "authority of its own, name its certificate: REQUESTS_CA_BUNDLE=FILE"
            ) from None
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            raise NotNow(f"sent nothing for {self._patience.silence:g} s, or took no connection") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            raise NotNow(f"did not answer, or not completely ({_root(error)})") from None

    def _check(self, status: int, body: bytes) -> None:
        if status in (401, 403):
            raise UserError(f"--{self._flag}={self.url} refuses access ({status}); {credentials.where(self._flag)}")
        if 300 <= status < 400:
            raise Declined(f"answered with a redirect ({status}), which is not followed; name the address it leads to")
        if status in _LATER:
            raise NotNow(f"answered {status}")
        if not 200 <= status < 300:
            raise Declined(f"answered {status}: {printable(body[:200].decode('utf-8', 'replace'))}")


def value(result: Mapping, tag: str) -> str:
    """Returns the first value of an element of a search result, as text; empty if there is none."""
    element = result.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values and values[0] is not None else ""


def _safe(uid: str) -> str:
    """Returns an identifier that an archive gave, as one part of a path, whatever it is."""
    return quote(uid, safe="")


def _failures(body: bytes) -> dict[str, str]:
    """Reads the Failed SOP Sequence (PS3.18, 10.5.3) of an answer in JSON; empty for any other."""
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    failed = answer.get("00081198") if isinstance(answer, dict) else None
    items = failed.get("Value") if isinstance(failed, dict) else None
    return {
        value(each, "00081155"): f"reason {value(each, '00081197') or 'not given'}"
        for each in (items if isinstance(items, list) else [])
        if isinstance(each, dict)
    }


def _root(error: BaseException) -> str:
    """Returns the kind of the error that caused another: its text may hold an address with a patient's study."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return type(error).__name__
