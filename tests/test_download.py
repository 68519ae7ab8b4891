"""The downloader against a server of the test's own that behaves badly."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from sdfn_jax.core.errors import UserError
from sdfn_jax.models.backbones import BACKBONES
from sdfn_jax.models.weights import download

IMAGENET = BACKBONES["densenet"].imagenet

CONTENT = np.random.default_rng(0).bytes(1_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; `cut` bytes into each answer it hangs up, `ranges` says whether it knows them."""

    content, cut, ranges = CONTENT, None, True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/models/weights.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if self.path != "/models/weights.pth":
            return self.send_error(404)
        if start and start >= len(self.server.content):
            return self.send_error(416)
        rest = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.cut])
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SDFN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def files(cache):
    return sorted(path.name for path in cache.iterdir())


def test_a_file_is_downloaded_once_and_then_taken_from_the_cache(server, cache):
    path = download.Published(server.url, DIGEST[:8]).fetch()
    assert path == cache / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert download.Published(server.url, DIGEST).fetch() == path
    assert server.asked == [None]
    assert files(cache) == ["weights.pth"]


def test_a_cut_connection_is_taken_up_where_it_stopped(server, cache):
    server.cut = 300_000
    assert download.Published(server.url, DIGEST).fetch().read_bytes() == CONTENT
    assert server.asked[0] is None
    places = [int(wanted.removeprefix("bytes=").removesuffix("-")) for wanted in server.asked[1:]]
    assert places == sorted(places)
    assert len(places) >= 3
    assert places[0] > 0


def test_a_later_call_goes_on_with_an_earlier_one(server, cache):
    server.cut = 0
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(CONTENT[:400_000])
    with pytest.raises(UserError, match="cannot be downloaded"):
        download.Published(server.url, DIGEST).fetch()
    assert files(cache) == ["weights.pth.part"]
    server.cut = None
    server.asked.clear()
    assert download.Published(server.url, DIGEST).fetch().read_bytes() == CONTENT
    assert server.asked == ["bytes=400000-"]


def test_a_download_that_only_lacks_its_name(server, cache):
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(CONTENT)
    assert download.Published(server.url, DIGEST).fetch().read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(server, cache):
    server.ranges = False
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(CONTENT[:400_000])
    assert download.Published(server.url, DIGEST).fetch().read_bytes() == CONTENT
    assert server.asked == ["bytes=400000-"]


def test_a_wrong_hash_leaves_nothing(server, cache):
    server.content = b"<html>" + CONTENT
    with pytest.raises(UserError, match=f"its SHA-256 is .*, not {DIGEST[:8]}.*discarded"):
        download.Published(server.url, DIGEST[:8]).fetch()
    assert files(cache) == []


def test_a_damaged_cache_is_said(server, cache):
    path = download.Published(server.url, DIGEST).fetch()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=f"its SHA-256 is .*delete {path}"):
        download.Published(server.url, DIGEST).fetch()


def test_offline_it_says_what_to_fetch_from_where_and_where_to_put_it(server, cache, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens there: and proxies are heeded
    with pytest.raises(UserError) as error:
        IMAGENET.fetch()
    for word in ("densenet121-a639ec97.pth", "https://download.pytorch.org/models/", "a639ec97", "ProxyError"):
        assert word in str(error.value)
    assert str(cache / "densenet121-a639ec97.pth") in str(error.value)
    assert "SDFN_CACHE" in str(error.value)


def test_an_absent_file_is_said_with_the_servers_answer(server):
    with pytest.raises(UserError, match="404"):
        download.Published(server.url.replace("weights", "others"), DIGEST).fetch()


def test_without_the_variable_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("SDFN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert IMAGENET.cached_file() == tmp_path / "sdfn_jax" / "densenet121-a639ec97.pth"
