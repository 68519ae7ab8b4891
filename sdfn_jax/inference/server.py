"""The viewer's server: a page on one's own machine that takes films and shows the findings."""

import asyncio
import contextlib
import ipaddress
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sdfn_jax.core.arguments import HOST
from sdfn_jax.core.errors import MissingPackageError, UserError
from sdfn_jax.core.extras import install_command
from sdfn_jax.inference import film_page
from sdfn_jax.inference.decoding import PROCESSES, Decoders
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.radiographs.flags import FIXES

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    from sdfn_jax.inference import connections
except ImportError as error:
    print(f"error: the viewer needs the package {error.name}: {install_command('viewer')}", file=sys.stderr)
    raise SystemExit(2) from error

LARGEST = 100_000_000  # bytes of an upload; a film of 5,000 x 4,000 pixels of 16 bits has 40,000,000
MEMORY = 4 * LARGEST  # bytes of all uploads at any one time
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def application(
    predictor: Predictor,
    hosts: Sequence[str],
    decode: Callable[[bytes, str], tuple[np.ndarray, tuple[str, ...]]],
    largest: int = LARGEST,
    memory: int = MEMORY,
) -> Starlette:
    """Makes the web application: the page, and readings for it.

    `GET /` is the page. `POST /readings?suffix=.dcm`, with a film's bytes as the body and its name's suffix, which some
    formats need, is answered with `film_page.entry` as JSON; with `&fix=inverted` (any of `FIXES`) the film is
    corrected first if it is flagged so.

    Whatever is refused is answered with JSON, {"error": a sentence}: 403 to other pages than our own, 413 above
    `largest`, 422 for what cannot be read as a film, 503 when the films of all requests together take more than
    `memory`. A request under another host name gets 400. A film whose sender has left is not decoded.

    Args:
      predictor: reads the films, one at a time.
      hosts: names and addresses under which it answers.
      decode: as `reader.decode_with_flags`; up to `PROCESSES` threads call it at a time.
      largest: bytes of an upload.
      memory: bytes of all uploads at a time.
    """
    policy = f"{film_page.policy(uploads=True)}; frame-ancestors 'none'"
    page = "".join(film_page.document(predictor.provenance, (), largest_upload=largest))
    one_at_a_time = asyncio.Lock()
    decoded_at_a_time = asyncio.Semaphore(PROCESSES)
    room = _Room(memory)

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS | {"Content-Security-Policy": policy})

    async def readings(request: Request) -> Response:
        # A browser names the sending page; otherwise another site's page could make this machine compute.
        if request.headers.get("origin") != f"http://{request.headers['host']}":
            return _refusal(403, "films are taken from the viewer's own page only")
        with room.of_one() as take:
            try:
                data = await _body(request, largest, take)
                async with decoded_at_a_time:
                    await _check_still_there(request)
                    radiograph, flags = await run_in_threadpool(decode, data, request.query_params.get("suffix", ""))
                    async with one_at_a_time:
                        await _check_still_there(request)
                        fixes = [name for name in request.query_params.getlist("fix") if name in FIXES]
                        entry = await run_in_threadpool(_entry, predictor, radiograph, flags, fixes)
            except ClientDisconnect:
                return _refusal(400, "the sender has left")  # which nobody reads
            except _TooMuch as error:
                return _refusal(error.status, str(error))
            except (ValueError, MissingPackageError) as error:
                return _refusal(422, str(error))
            except Exception as error:  # a bug of ours; its message may quote the film, and stays out of the log
                place = "".join(traceback.format_tb(error.__traceback__))
                print(f"a film could not be read: {type(error).__name__}\n{place}", file=sys.stderr)
                return _refusal(500, f"cannot be read ({type(error).__name__}); the viewer's terminal says where")
        return JSONResponse(entry, headers=_HEADERS)

    return Starlette(
        routes=[Route("/", index), Route("/readings", readings, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


class _TooMuch(Exception):
    """An upload that is refused, with an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class _Room:
    """Bytes of memory that all uploads share."""

    def __init__(self, size: int):
        self._size = self._left = size

    @contextlib.contextmanager
    def of_one(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that reserves bytes for one upload, or raises `_TooMuch`; the block's end frees them."""
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if count > self._left:
                sentence = f"the viewer holds other films, {self._size / 1e6:g} MB at most; send this one again later"
                raise _TooMuch(503, sentence)
            self._left -= count
            taken += count

        try:
            yield take
        finally:
            self._left += taken


async def _body(request: Request, largest: int, take: Callable[[int], None]) -> bytes:
    """Reads the body, whatever length the header states.

    Raises:
      _TooMuch: as soon as it is known to be larger than allowed, or than `take` gives.
      ClientDisconnect: for an upload that is interrupted.
    """
    too_large = _TooMuch(413, f"larger than {largest / 1e6:g} MB, the most that the viewer takes")
    if int(request.headers.get("content-length", 0)) > largest:
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        take(len(chunk))
        data += chunk
        if len(data) > largest:
            raise too_large
    return bytes(data)


async def _check_still_there(request: Request) -> None:
    if await request.is_disconnected():
        raise ClientDisconnect


def _refusal(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status, _HEADERS)


def _entry(predictor: Predictor, radiograph: np.ndarray, flags: tuple[str, ...], fixes: Sequence[str]) -> dict:
    return film_page.entry(predictor.read("", radiograph, flags, fixes))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(f"--host={host} --port={port}: {error}; --port=0 takes any free port") from error


def _server(app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=connections.Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Of requests: one whose sender has left is still answered. Connections never become so many.
        limit_concurrency=2 * connections.MOST,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(checkpoint: str | None, lrg: str | None, host: str, port: int) -> None:
    """Loads the networks, compiles them, and answers until Ctrl-C."""
    shown = f"[{host}]" if ":" in host else host
    with _listen(host, port) as listening, Decoders() as decoders:
        print("Loading and compiling the networks ...", flush=True)
        predictor = Predictor.load(checkpoint, lrg)
        predictor.read("", np.zeros((1024, 1024), np.uint8))
        for note in (*film_page.notes(predictor.provenance), predictor.gaps):
            if note:
                print(note)
        if not _is_local(host):
            print(
                f"WARNING: --host={host}: whoever reaches this address can use the viewer, without a password, and "
                "films travel to it unencrypted",
                file=sys.stderr,
            )
        server = _server(application(predictor, [HOST, "localhost", "[::1]", shown], decoders.decode))
        print(f"Open http://{shown}:{listening.getsockname()[1]}/ in a browser. Ctrl-C ends the viewer.", flush=True)
        # It lets running requests end, then raises Ctrl-C's interrupt again.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
