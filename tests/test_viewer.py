"""The viewer: what its server answers, and a real browser that drops films on its page."""

import asyncio
import contextlib
import http.client
import importlib.util
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sdfn_jax import viewer as viewer_command
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.extras import install_command
from sdfn_jax.inference import connections, decoding, selftest
from sdfn_jax.inference import server as inference_server
from sdfn_jax.radiographs import reader, synthetic_dataset
from tests import dicom_files
from tests.browser import chromium
from tests.readings import PROVENANCE, reading


class Stub:
    """A predictor without networks; it fails on a film that is all black."""

    provenance = PROVENANCE

    def __init__(self):
        self.running = self.most_running = 0

    def read(self, name, radiograph, flags, fixes):
        if not radiograph.any():
            raise RuntimeError(f"a film of {radiograph.size} pixels")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        time.sleep(0.02)  # long enough for another to begin
        self.running -= 1
        if "inverted" in fixes and "inverted" in flags:
            flags = tuple(flag for flag in flags if flag != "inverted")
            radiograph = 255 - radiograph
        return reading(name, radiograph=radiograph, size=radiograph.shape, flags=flags, fixes=tuple(fixes))


def png(value=100):
    data = io.BytesIO()
    Image.fromarray(np.full((40, 50), value, np.uint8)).save(data, "PNG")
    return data.getvalue()


def ask(app, *request, **headers):
    return asyncio.run(asking(app, *request, **headers))


async def asking(
    app, method="GET", path="/", chunks=(b"",), query=b"", broken_off=False, left=False, pause=None, **headers
):
    """One request to a web application, as a server hands it over (ASGI): its status, headers and body.

    After the first chunk it waits for the event `pause`. The sender leaves before the last chunk (`broken_off`),
    or after it (`left`).
    """
    sent, waiting = [], list(chunks)
    headers = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"} | headers
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""},
        **{"method": method, "path": path, "raw_path": path.encode(), "query_string": query},
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items() if value],
    }

    async def receive():
        if not waiting:
            if not (broken_off or left):
                await asyncio.Event().wait()  # the browser waits for its answer
            return {"type": "http.disconnect"}
        if pause is not None and len(waiting) < len(chunks):
            await pause.wait()
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or broken_off}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return SimpleNamespace(status=sent[0]["status"], headers=dict(sent[0]["headers"]), body=body, left=len(waiting))


@pytest.fixture
def app():
    return inference_server.application(Stub(), ["127.0.0.1", "[::1]"], reader.decode_with_flags, largest=1000)


def test_a_film_is_answered_with_its_entry(app):
    answer = ask(app, "POST", "/readings", [png()[:50], png()[50:]])
    assert answer.status == 200
    entry = json.loads(answer.body)
    assert (entry["size"], entry["name"]) == ([50, 40], "")
    assert len(entry["findings"]["probability"]) == 14
    assert answer.headers[b"cache-control"] == b"no-store"
    assert not any(name.startswith(b"access-control") for name in answer.headers)  # no other site may read it


def test_what_of_its_header_could_not_be_used_is_among_a_films_flags(app, tmp_path):
    film = dicom_files.write(tmp_path / "a.dcm", np.full((8, 8), 100, np.uint8), WindowCenter=0, WindowWidth=0)
    answer = ask(app, "POST", "/readings", [film.read_bytes()])
    assert json.loads(answer.body)["flags"] == ["dicom_window"]


def test_a_film_is_read_corrected_where_asked_for_by_a_known_name():
    decode = lambda data, suffix: (reader.decode_with_flags(data, suffix)[0], ("inverted",))  # noqa: E731
    app = inference_server.application(Stub(), ["127.0.0.1"], decode)
    plain, fixed, other = (
        json.loads(ask(app, "POST", "/readings", [png()], query).body) for query in (b"", b"fix=inverted", b"fix=shell")
    )
    assert (plain["flags"], plain["fixes"]) == (["inverted"], [])
    assert (fixed["flags"], fixed["fixes"]) == ([], ["inverted"])
    assert other == plain


def test_the_page_may_run_its_own_script_and_ask_its_own_server_only(app):
    answer = ask(app)
    assert answer.status == 200
    policy = answer.headers[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "0.0.0.0:8000"])
def test_another_host_name_is_refused(app, host):
    """A site whose name is made to point to 127.0.0.1 (DNS rebinding) would otherwise count as ourselves."""
    for method, path in (("GET", "/"), ("POST", "/readings")):
        answer = ask(app, method, path, [png()], host=host, origin=f"http://{host}")
        assert answer.status == 400
        assert b"probabilities" not in answer.body


def test_ipv6_has_a_name_too(app):
    assert ask(app, host="[::1]:8000").status == 200
    assert ask(app, "POST", "/readings", [png()], host="[::1]:8000", origin="http://[::1]:8000").status == 200


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "http://127.0.0.1:9000", "https://127.0.0.1:8000", "http://127.0.0.1"]
)
def test_a_film_from_another_page_is_refused(app, origin):
    answer = ask(app, "POST", "/readings", [png()], origin=origin)
    assert answer.status == 403
    assert "own page" in json.loads(answer.body)["error"]


def test_too_large_a_film_is_refused_before_all_of_it_is_there(app):
    announced = ask(app, "POST", "/readings", [png()], content_length="1001")
    unannounced = ask(app, "POST", "/readings", [b"x" * 600] * 5)
    for answer in (announced, unannounced):
        assert answer.status == 413
        assert json.loads(answer.body)["error"] == "larger than 0.001 MB, the most that the viewer takes"
    assert (announced.left, unannounced.left) == (1, 3)
    assert ask(app, "POST", "/readings", [png().ljust(1000, b"\0")]).status == 200


def test_what_is_no_film_is_answered_with_a_sentence(app):
    answer = ask(app, "POST", "/readings", [b"dear diary"])
    assert (answer.status, json.loads(answer.body)) == (422, {"error": "cannot be decoded (not an image file)"})
    answer = ask(app, "POST", "/readings", [b"dear diary"], b"suffix=.img")
    assert "a JSRT .IMG has 8388608" in json.loads(answer.body)["error"]
    assert ask(app, "POST", "/readings", [b""]).status == 422


def test_a_mistake_of_ours_is_said_without_what_it_quotes(app, capsys):
    answer = ask(app, "POST", "/readings", [png(0)])
    assert answer.status == 500
    assert "RuntimeError" in json.loads(answer.body)["error"]
    said = "".join(capsys.readouterr())
    assert "in read" in said  # the place in the program
    assert "2000" not in said + answer.body.decode()


def test_films_are_read_one_at_a_time():
    stub = Stub()
    app = inference_server.application(stub, ["127.0.0.1"], reader.decode_with_flags)

    async def several():
        return await asyncio.gather(*(asking(app, "POST", "/readings", [png()]) for _ in range(4)))

    assert [answer.status for answer in asyncio.run(several())] == [200] * 4
    assert stub.most_running == 1


def test_all_films_together_take_no_more_memory_than_allowed():
    film = png().ljust(900, b"\0")
    app = inference_server.application(Stub(), ["127.0.0.1"], reader.decode_with_flags, largest=1000, memory=1500)

    async def two():
        pause = asyncio.Event()
        first = asyncio.create_task(asking(app, "POST", "/readings", [film[:850], film[850:]], pause=pause))
        await asyncio.sleep(0.01)
        second = await asking(app, "POST", "/readings", [film[:450], film[450:]])
        pause.set()
        return await first, second

    first, second = asyncio.run(two())
    assert (first.status, second.status) == (200, 503)
    sentence = "the viewer holds other films, 0.0015 MB at most; send this one again later"
    assert json.loads(second.body)["error"] == sentence
    assert ask(app, "POST", "/readings", [film]).status == 200  # there is room again


def test_a_film_whose_sender_left_while_it_waited_is_not_decoded():
    decoded = []
    free = threading.Event()

    def decode(data, suffix):
        decoded.append(data)
        free.wait(timeout=20)
        return reader.decode_with_flags(data, suffix)

    app = inference_server.application(Stub(), ["127.0.0.1"], decode)

    async def several():
        busy = [asyncio.create_task(asking(app, "POST", "/readings", [png()])) for _ in range(decoding.PROCESSES)]
        await asyncio.sleep(0.1)
        gone = asyncio.create_task(asking(app, "POST", "/readings", [png()], left=True))
        await asyncio.sleep(0.1)
        free.set()
        return [answer.status for answer in await asyncio.gather(*busy, gone)]

    assert asyncio.run(several()) == [200] * decoding.PROCESSES + [400]
    assert len(decoded) == decoding.PROCESSES


def test_an_upload_that_is_broken_off_is_no_mistake_of_ours(app):
    assert ask(app, "POST", "/readings", [png()[:50]], broken_off=True).status == 400


def test_other_requests_are_refused(app):
    assert ask(app, "GET", "/readings").status == 405
    assert ask(app, "POST", "/").status == 405
    assert ask(app, "GET", "/../README.md").status == 404


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True)]
)
def test_only_this_machine_is_answered_unless_asked_for(monkeypatch, capsys, host, warned):
    stub = SimpleNamespace(provenance=PROVENANCE, read=lambda *_: 0, gaps="")
    monkeypatch.setattr(inference_server.Predictor, "load", lambda *_: stub)
    bound = []
    monkeypatch.setattr(
        inference_server.uvicorn.Server, "run", lambda self, sockets: bound.append(sockets[0].getsockname())
    )
    flags = ["--checkpoint=run", "--port=0"] + [f"--host={host}"] * (host != inference_server.HOST)
    try:
        viewer_command.main(flags)
    except UserError:
        assert host == "::1"  # a machine without IPv6
        return
    said = capsys.readouterr()
    assert bound[0][0] == {"localhost": "127.0.0.1"}.get(host, host)
    assert ("WARNING" in said.err and "unencrypted" in said.err) == warned
    assert f":{bound[0][1]}/" in said.out


def test_a_port_that_is_taken_or_none_is_said(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}.*--port=0 takes any free port"):
            inference_server.serve("run", None, "127.0.0.1", port)
    with pytest.raises(SystemExit):
        viewer_command.main(["--checkpoint=run", "--port=99999"])
    assert "--port is 99999; it must be from 0 to 65535" in capsys.readouterr().err


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    copy = importlib.util.spec_from_file_location("viewer_copy", inference_server.__file__)
    with pytest.raises(SystemExit) as stop:
        copy.loader.exec_module(importlib.util.module_from_spec(copy))
    assert stop.value.code == 2
    assert f"needs the package uvicorn: {install_command('viewer')}" in capsys.readouterr().err


# A real server, and sockets that do not behave.


@contextlib.contextmanager
def serving(app):
    """The viewer's server with a web application, in a thread; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = inference_server._server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def connect(port):
    return contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=20))


def is_broken_off(connection):
    """Waits until the other side has ended a connection."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(2**16):
            pass
    return True


def head(port, length):
    host = f"127.0.0.1:{port}"
    lines = ["POST /readings HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def status(port, method="GET", path="/", body=None):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, body, {"Origin": f"http://127.0.0.1:{port}"})
        return connection.getresponse().status


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:", "head", "upload"])
def test_half_open_requests_do_not_shut_it(sent):
    """More of them than connections are held; each is younger than the patience with it."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(
            serving(inference_server.application(Stub(), ["127.0.0.1"], reader.decode_with_flags))
        )
        waiting = []
        for _ in range(connections.MOST + 8):
            waiting.append(stack.enter_context(connect(port)))
            request = head(port, 10**6) if isinstance(sent, str) else sent
            waiting[-1].sendall(request + b"x" * 1000 * (sent == "upload"))
        assert status(port) == 200
        assert status(port, "POST", "/readings", png()) == 200
        ended, _, _ = select.select(waiting, [], [], 0)
        assert len(ended) >= 8


class TestPatience:
    @pytest.fixture(autouse=True)
    def little(self, monkeypatch):
        monkeypatch.setattr(connections, "PATIENCE", 0.3)

    @pytest.fixture
    def port(self):
        slow = SimpleNamespace(provenance=PROVENANCE, read=lambda *each: time.sleep(1) or Stub().read(*each))
        with serving(inference_server.application(slow, ["127.0.0.1"], reader.decode_with_flags)) as port:
            yield port

    def test_silence_is_broken_off(self, port):
        with connect(port) as silent, connect(port) as half, connect(port) as paused:
            half.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            paused.sendall(head(port, 1000) + b"x" * 500)
            assert is_broken_off(silent) and is_broken_off(half) and is_broken_off(paused)

    def test_a_head_of_a_letter_at_a_time_is_too(self, port):
        with connect(port) as connection, pytest.raises(ConnectionError):
            for _ in range(200):
                connection.sendall(b"G")
                time.sleep(0.02)

    def test_an_answer_that_nobody_fetches_is_too(self):
        gone = threading.Event()

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(50_000_000), "more_body": True})
            await send({"type": "http.response.body", "body": b""})  # waits until the first is fetched, or will not be
            gone.set()

        with serving(app) as port, connect(port) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert gone.wait(timeout=20)

    def test_a_slow_upload_is_not_nor_a_film_that_takes_long_to_read(self, port):
        film = png()
        with connect(port) as connection:
            connection.sendall(head(port, len(film)))
            step = len(film) // 10 + 1
            for start in range(0, len(film), step):
                time.sleep(0.1)
                connection.sendall(film[start : start + step])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


# The command, with a decoder that takes for ever where it is told to.

COMMAND = """
import sys
from sdfn_jax import viewer
from sdfn_jax.inference import decoding, server
from tests.test_viewer import Stub

class Predictor(Stub):
    gaps = ""
    load = classmethod(lambda cls, *_: cls())
    def read(self, name, film, flags=(), fixes=()):
        return Stub.read(self, name, film, flags, fixes) if film.any() else None

server.Predictor = Predictor
decoding._COMMAND = '''
import time
from sdfn_jax.inference import decoding
from sdfn_jax.radiographs import reader

decode = reader.decode_with_flags
reader.decode_with_flags = lambda data, suffix: time.sleep(1000) if data == b"slow" else decode(data, suffix)
decoding.work()
'''
viewer.main(["--checkpoint=run", "--port=0"])
"""


@contextlib.contextmanager
def stubborn():
    """The command; gives process and port."""
    command = [sys.executable, "-c", COMMAND]
    paths = {"PYTHONPATH": str(Path(inference_server.__file__).parents[2])}
    with subprocess.Popen(command, env=os.environ | paths, stdout=subprocess.PIPE) as process:
        try:
            said = iter(lambda: process.stdout.readline().decode(), "")
            yield process, next(int(found[1]) for line in said if (found := re.search(r"127\.0\.0\.1:(\d+)/", line)))
        finally:
            process.kill()


def test_a_film_that_takes_for_ever_stops_neither_the_others_nor_ctrl_c():
    with stubborn() as (process, port), connect(port) as slow, connect(port):
        slow.sendall(head(port, 4) + b"slow")
        for _ in range(3):
            assert status(port, "POST", "/readings", png()) == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 0


# A real server, and a real browser.


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The command with the golden networks; Ctrl-C ends it in the end, and its folder is then as it was."""
    run = selftest.unpack(tmp_path_factory.mktemp("golden"))
    home = tmp_path_factory.mktemp("home")
    log = tmp_path_factory.mktemp("log") / "log.txt"
    command = [sys.executable, "-m", "sdfn_jax.viewer", f"--checkpoint={run}", "--port=0"]
    paths = {"PYTHONPATH": str(Path(inference_server.__file__).parents[2]), "TMPDIR": str(home), "HOME": str(home)}
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=home, env=os.environ | paths, stdout=subprocess.PIPE, stderr=file)
        try:
            said = iter(lambda: process.stdout.readline().decode(), "")
            found = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in said)
            address = next(filter(None, found), None) or pytest.fail(log.read_text())
            yield address[0]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
            rest = process.stdout.read().decode()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    # Nothing of the films: no name, no line for a request, no traceback; and no file.
    assert (rest, log.read_text()) == ("", "")
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def browser(served):
    with chromium() as driver:
        yield driver


@pytest.fixture
def opened(served, browser):
    browser.get(served)
    yield browser
    assert [line for line in browser.get_log("browser") if "422" not in line["message"]] == []


def drop(driver, *paths):
    """Drags files from the desktop onto the page, and waits until they are read."""
    data = {"items": [], "files": [str(path.resolve()) for path in paths], "dragOperationsMask": 1}
    driver.execute_script("window.before = queue")
    for kind in ("dragEnter", "dragOver", "drop"):
        driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 300, "data": data})
    driver.set_script_timeout(60)
    driver.execute_async_script(  # the page hears of the drop when it has time
        "const done = arguments[0];"
        "const wait = () => queue === window.before ? setTimeout(wait, 20) : queue.then(done);"
        "wait()"
    )


def drawing(tmp_path):
    record = json.loads((Path(selftest.__file__).parent / "golden" / "films.json").read_text())["films"][0]
    film = (
        synthetic_dataset.SyntheticFilm(record["name"], tuple(record["findings"]), tuple(record["stream"])).draw().image
    )
    Image.fromarray(film).save(tmp_path / "Jane_Doe.png")
    return film, record


def picture(driver):
    """What the canvas holds, and its largest opacity."""
    return driver.execute_script(
        "const canvas = document.getElementById('heatmap');"
        "const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        "return [canvas.toDataURL(), data.reduce((most, value, k) => Math.max(most, k % 4 === 3 ? value : 0))]"
    )


def test_a_dropped_film_is_read_and_shown(opened, tmp_path):
    _, record = drawing(tmp_path)
    assert not opened.find_element("id", "app").is_displayed()
    drop(opened, tmp_path / "Jane_Doe.png")
    assert opened.find_element("id", "name").text == "Jane_Doe.png"
    golden = list(record["probabilities"].values())
    for row in opened.find_elements("class name", "finding"):
        index = int(row.find_element("tag name", "input").get_property("value"))
        assert float(row.find_element("class name", "value").text) == pytest.approx(golden[index], abs=0.002)
    box = opened.find_element("css selector", "#box rect:last-child")
    assert box.is_displayed()
    left, top, right, bottom = record["lung_box"]
    corner = [float(box.get_attribute(name)) for name in ("x", "y", "width", "height")]
    assert corner == [left, top, right - left, bottom - top]
    opened.find_elements("class name", "finding")[0].click()
    first = picture(opened)
    opened.find_elements("class name", "finding")[5].click()
    second = picture(opened)
    assert first[0] != second[0]
    assert first[1] == second[1] == 255
    assert "trained on synthetic radiographs" in opened.find_element("tag name", "header").text


def test_text_renamed_to_png_gives_a_readable_message_and_the_others_go_on(opened, tmp_path):
    (tmp_path / "notes.png").write_text("dear diary")
    film, _ = drawing(tmp_path)
    dicom = dicom_files.write(tmp_path / "film.dcm", film)
    drop(opened, tmp_path / "notes.png", tmp_path / "Jane_Doe.png", dicom)
    assert opened.find_element("id", "errors").text == "notes.png: cannot be decoded (not an image file)"
    assert opened.find_element("id", "reading").text == ""
    names = [each.text for each in opened.find_elements("css selector", "#thumbnails bdi")]
    assert names == ["Jane_Doe.png", "film.dcm"]
    same = [each.text for each in opened.find_elements("css selector", "#thumbnails .sorted")]
    assert same[0] == same[1]  # the same film, the same finding


def test_while_films_are_read_the_view_stays_and_counts(opened, tmp_path):
    film, _ = drawing(tmp_path)
    for name in "abc":
        Image.fromarray(film).save(tmp_path / f"{name}.png")
    opened.execute_script(
        "window.said = new Set();"
        "new MutationObserver(() => window.said.add(element('reading').textContent))"
        ".observe(element('reading'), {childList: true})"
    )
    drop(opened, *(tmp_path / f"{name}.png" for name in "abc"))
    assert opened.find_element("id", "name").text == "a.png"
    said = opened.execute_script("return [...window.said]")
    assert [line for line in said if line][-1] == "Reading 3 of 3: c.png …"
    drop(opened, tmp_path / "Jane_Doe.png")  # one alone is what its reader waits for
    assert opened.find_element("id", "name").text == "Jane_Doe.png"
    assert "Reading Jane_Doe.png …" in opened.execute_script("return [...window.said]")
    assert len(opened.find_elements("css selector", "#thumbnails li")) == 4


def test_an_inverted_film_is_read_again_as_its_reader_asks(opened, tmp_path):
    film, _ = drawing(tmp_path)
    Image.fromarray(255 - film).save(tmp_path / "dark.png")
    drop(opened, tmp_path / "Jane_Doe.png", tmp_path / "dark.png")
    upright = opened.execute_script("return films[0].findings.probability")
    opened.execute_script("show(films[1])")
    assert not opened.find_element("id", "all").is_displayed()
    button = opened.find_element("css selector", "#flags button")
    assert button.text == "Read it inverted"
    opened.execute_script("window.before = queue")
    button.click()
    opened.execute_async_script("queue.then(arguments[0])")
    assert opened.find_element("id", "name").text == "dark.png"
    assert "Corrected as asked" in opened.find_element("id", "flags").text
    assert opened.find_element("id", "all").is_displayed()
    assert opened.execute_script("return films[1].findings.probability") == pytest.approx(upright, abs=1e-6)
    assert opened.execute_script("return films.length") == 2


def test_a_film_chosen_from_a_folder_is_read(opened, tmp_path):
    drawing(tmp_path)
    opened.find_element("id", "files").send_keys(str(tmp_path / "Jane_Doe.png"))
    opened.execute_async_script("const done = arguments[0]; setTimeout(() => queue.then(done), 50)")
    assert opened.find_element("id", "name").text == "Jane_Doe.png"


def test_a_film_is_read_in_a_browser_while_another_takes_for_ever(browser, tmp_path):
    drawing(tmp_path)
    with stubborn() as (_, port), connect(port) as slow:
        slow.sendall(head(port, 4) + b"slow")
        browser.get(f"http://127.0.0.1:{port}/")
        drop(browser, tmp_path / "Jane_Doe.png")
        assert browser.find_element("id", "name").text == "Jane_Doe.png"


def test_too_large_a_file_is_not_even_sent(opened, tmp_path):
    with (tmp_path / "huge.dcm").open("wb") as file:
        file.truncate(inference_server.LARGEST + 1)
    drop(opened, tmp_path / "huge.dcm")
    assert "huge.dcm: 100 MB; the viewer takes films of at most 100 MB" in opened.find_element("id", "errors").text


def test_a_page_of_another_site_reaches_nothing(served):
    connection = http.client.HTTPConnection(served.split("/")[2])
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"Host": "evil.example"})
        assert connection.getresponse().status == 400


@pytest.mark.real
def test_a_real_film_is_dropped(opened, real_data):
    path = sorted((real_data / "chestxray14" / "images").glob("*.png"))[0]
    drop(opened, path)
    assert opened.find_element("id", "name").text == path.name
    assert opened.find_element("css selector", "#box rect:last-child").is_displayed()
    pictures = []
    opened.execute_script("films[0].anyway = true; showFindings()")  # a golden network may doubt it
    for row in opened.find_elements("class name", "finding")[:2]:
        row.click()
        pictures.append(picture(opened))
    assert pictures[0][0] != pictures[1][0]
