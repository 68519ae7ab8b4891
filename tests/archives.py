"""Archives to read films from: Orthanc with its DICOMweb plugin, and a small scripted one that misbehaves on demand."""

import contextlib
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest
import requests
from pydicom.filebase import DicomBytesIO

ORTHANC, PLUGIN = "/usr/sbin/Orthanc", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
USER, PASSWORD = "reader", "not-a-secret"


class Orthanc:
    """An Orthanc on loopback; its films stay when it is restarted."""

    def __init__(self, folder: Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/dicom-web"
        self._config = folder / "orthanc.json"
        settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "HttpPort": port,
            "DicomServerEnabled": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [PLUGIN],
        }
        self._config.write_text(json.dumps(settings))

    def start(self) -> None:
        with self._config.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen([ORTHANC, self._config], stdout=log, stderr=log)
        for _ in range(600):
            with contextlib.suppress(requests.ConnectionError):
                self.ask("/system")
                return
            assert self._process.poll() is None, self._config.with_suffix(".log").read_text()
            time.sleep(0.05)
        raise TimeoutError("Orthanc does not answer")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def ask(self, path: str, data: bytes | None = None, method: str = "GET") -> requests.Response:
        answer = requests.request(method, self.root + path, data=data, auth=(USER, PASSWORD), timeout=30)
        answer.raise_for_status()
        return answer

    def add(self, film: Path) -> None:
        self.ask("/instances", film.read_bytes(), "POST")

    def instances(self) -> dict[str, str]:
        """{SOP Instance UID: Orthanc's own identifier} of all it holds."""
        listed = self.ask("/instances?expand").json()
        return {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in listed}

    def data(self, uid: str) -> pydicom.Dataset:
        return pydicom.dcmread(DicomBytesIO(self.ask(f"/instances/{self.instances()[uid]}/file").content))


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Starts Orthanc; where it is missing the test is skipped, but in CI it fails."""
    if not os.environ.get("CI") and not (Path(ORTHANC).exists() and Path(PLUGIN).exists()):
        pytest.skip(f"no {ORTHANC} (Debian: orthanc, orthanc-dicomweb)")
    server = Orthanc(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Scripted:
    """A DICOMweb service that keeps files in memory.

    Attributes:
      files: {SOP Instance UID: file}.
      listed: (study, series, instance) of what it lists more than its files.
      asked: (method, path) of every request.
      behave: called with the handler before it answers; returning True, it has answered itself.
    """

    def __init__(self, *films: Path):
        self.files: dict[str, bytes] = {}
        self.listed: list[tuple[str, str, str]] = []
        self.asked: list[tuple[str, str]] = []
        self.behave: Callable[[http.server.BaseHTTPRequestHandler], bool] = lambda handler: False
        for film in films:
            self.keep(film.read_bytes())

    def keep(self, data: bytes) -> str:
        uid = pydicom.dcmread(DicomBytesIO(data), stop_before_pixels=True).SOPInstanceUID
        self.files[uid] = data
        return uid

    def results(self) -> dict[str, int]:
        """{SOP Instance UID of a result: how often it was sent}."""
        return dict(self._sent)

    @contextlib.contextmanager
    def serve(self, encrypted: ssl.SSLContext | None = None) -> Iterator[str]:
        """Yields the address."""
        self._sent: dict[str, int] = {}
        archive = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                archive.asked.append(("GET", self.path))
                if not archive.behave(self):
                    archive._get(self)

            def do_POST(self):
                archive.asked.append(("POST", self.path))
                self.body = self.rfile.read(int(self.headers["Content-Length"]))
                if not archive.behave(self):
                    archive.take(self)
                    answer(self, 200, b"{}", "application/dicom+json")

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            if encrypted is not None:
                server.socket = encrypted.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield f"{'http' if encrypted is None else 'https'}://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()

    def take(self, handler) -> None:
        """Stores what was sent."""
        boundary = handler.headers["Content-Type"].partition("boundary=")[2].encode()
        for part in handler.body.split(b"--" + boundary)[1:-1]:
            uid = self.keep(part.partition(b"\r\n\r\n")[2][:-2])
            self._sent[uid] = self._sent.get(uid, 0) + 1

    def _get(self, handler) -> None:
        path, _, query = handler.path.partition("?")
        parts, query = path.strip("/").split("/"), parse_qs(query)
        if len(parts) == 6:
            return answer_with_file(handler, self.files[parts[5]])
        wanted = query.get("ModalitiesInStudy", [""])[0]
        found: dict[str, dict] = {}
        for study, series, uid, header in self._all():
            if (len(parts) == 1 and wanted == header.get("Modality")) or parts[1:2] == [study]:
                if len(parts) == 5 and parts[3] != series:
                    continue
                element = {1: study, 3: series, 5: uid}[len(parts)]
                found[element] = {
                    "0020000D": {"Value": [study]},
                    "0020000E": {"Value": [series]},
                    "00080018": {"Value": [uid]},
                    "00080060": {"Value": [header.get("Modality", "")]},
                    "00180015": {"Value": [header.get("BodyPartExamined", "")]},
                    "0008103E": {"Value": [header.get("SeriesDescription", "")]},
                }
        start = int(query["offset"][0])
        page = list(found.values())[start : start + int(query["limit"][0])]
        return answer(handler, 200, json.dumps(page).encode(), "application/dicom+json")

    def _all(self):
        for uid, data in self.files.items():
            header = pydicom.dcmread(DicomBytesIO(data), stop_before_pixels=True)
            yield header.StudyInstanceUID, header.SeriesInstanceUID, uid, header
        for study, series, uid in self.listed:
            yield study, series, uid, {"Modality": "DX", "BodyPartExamined": "CHEST"}


def answer(handler, status: int, body: bytes, kind: str = "text/html", **headers: str) -> bool:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    return True


def multipart(data: bytes, end: bytes = b"\r\n--x--\r\n") -> bytes:
    return b"--x\r\nContent-Type: application/dicom\r\n\r\n" + data + end


def answer_with_file(handler, data: bytes, **changes) -> bool:
    kind = 'multipart/related; type="application/dicom"; boundary=x'
    return answer(handler, 200, multipart(data, **changes), kind)


def is_film(handler) -> bool:
    """Whether a request is one for a film."""
    return handler.command == "GET" and len(urlsplit(handler.path).path.strip("/").split("/")) == 6
