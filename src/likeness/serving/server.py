"""The page's server: on this machine alone unless asked, with nothing open but what the page itself uses."""

import ipaddress
import json
import logging
import os
import re
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from likeness.errors import LikenessError
from likeness.finding import Finder
from likeness.serving.memory import Thumbnails, Uploads
from likeness.serving.results import MOST_BYTES

log = logging.getLogger(__name__)

_MOST_ASKED = 65_536  # bytes of one question; photos come before it
_SECONDS_TO_END = 1
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # gradio's own page is made that way
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "object-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'self'",
    )
)
_OPEN = {
    "GET": re.compile(
        r"/|/(assets|static|thumbnails)/.*|/theme\.css|/favicon\.ico|/manifest\.json"
        r"|/gradio_api/(queue/data|heartbeat/\w+)"
    ),
    "POST": re.compile(r"/photos|/gradio_api/queue/join"),
}
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def serve(index: Path, compare: Path | None, host: str, port: int, browser: bool) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        LikenessError: CONFIG-EXTRA without gradio, SERVE when nothing can be listened at there, and as ``Finder.open``.
    """
    _need_gradio()
    with closing(listening(host, port)) as ear, tempfile.TemporaryDirectory(prefix="likeness-serve-") as folder:
        finders = [Finder.open(each) for each in (index, compare) if each is not None]
        run = server(finders, Path(folder), host)
        address = f"http://{_in_address(host)}:{ear.getsockname()[1]}"
        log.info("%s  (Ctrl-C ends it)", address)
        if browser and _has_screen():
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            run.run(sockets=[ear])
    log.info("ended")


def _need_gradio() -> None:
    if find_spec("gradio") is None:
        raise LikenessError(
            "CONFIG-EXTRA",
            "likeness serve was asked for, and gradio is not installed.",
            where="serve",
            fix='pip install "likeness[demo]"',
        )


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at ``host``; a reader who comes before the page is ready waits there.

    Raises:
        LikenessError: SERVE when the port is taken, or the host is none of this machine's.
    """
    if not _is_loopback(host):
        log.warning("[SERVE] whoever reaches %s sees the index's pictures and can search in them: no password", host)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise LikenessError(
            "SERVE",
            "the page's address cannot be listened at.",
            where=f"{host}:{port}",
            cause=str(error),
            fix="Give another --port (0 takes a free one), or end what listens there.",
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _has_screen() -> bool:
    """Without one Python would open a browser in the terminal, and wait for it."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def server(finders: Sequence[Finder], folder: Path, host: str) -> Any:
    """A ``uvicorn.Server`` of the page; whatever gradio writes goes to ``folder``."""
    import uvicorn

    config = uvicorn.Config(
        application(finders, folder, host),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    return uvicorn.Server(config)


def application(finders: Sequence[Finder], folder: Path, host: str) -> Any:
    """The page, its thumbnails and uploads behind ``Gate``, as an ASGI application."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder), "HF_HUB_OFFLINE": "1"}

    import gradio
    from fastapi import FastAPI, Request, Response

    from likeness.serving import page

    thumbnails, uploads = Thumbnails(), Uploads()
    app = FastAPI(openapi_url=None)

    @app.get("/thumbnails/{name}")
    def thumbnail(name: str) -> Response:
        jpeg = thumbnails.get(name)
        headers = {"cache-control": "private, max-age=86400, immutable"}
        return Response(jpeg, media_type="image/jpeg", headers=headers) if jpeg else Response(status_code=404)

    @app.post("/photos")
    async def photo(request: Request) -> Response:
        return Response(uploads.put(await request.body()), media_type="text/plain")

    blocks = page.page(finders, thumbnails.address, uploads)
    look = {"theme": page.theme(), "css": page.style(), "footer_links": []}
    closed = {"run_history": False, "show_error": False, "ssr_mode": False, "pwa": False, "mcp_server": False}
    gradio.mount_gradio_app(app, blocks, "/", enable_monitoring=False, **look, **closed)
    return Gate(app, {"localhost", "127.0.0.1", "[::1]"} if _is_loopback(host) else None)


class Gate:
    """Lets through what the page uses; gradio serves much more: an API, files, a proxy, recordings, an editor.

    A question may hold no objects: gradio takes some for files, which it would read here or fetch from elsewhere.

    Args:
        hosts: What a browser may call this server; None is anything. With it no page of another site can ask here by a
            name of its own for this machine.
    """

    def __init__(self, app: Any, hosts: set[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], *_HEADERS]}
            await send(message)

        refused = self.refused(scope)
        if not refused and scope["path"].endswith("/join"):
            body = await _whole(receive)
            refused = None if is_flat(body) else (400, "this is no question of the page")
            receive = _again(body, receive)
        if not refused:
            return await self.app(scope, receive, sent)
        status, told = refused
        await sent({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        return await sent({"type": "http.response.body", "body": told.encode()})

    def refused(self, scope: Any) -> tuple[int, str] | None:
        """Status and reason with which a request ends here."""
        headers = dict(scope["headers"])
        name = re.sub(r":\d+$", "", headers.get(b"host", b"").decode("latin-1"))
        if self.hosts is not None and name not in self.hosts:
            return 400, "this page is served to its own machine only"
        known = _OPEN.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if known is None or not known.fullmatch(scope["path"]):
            return 404, "there is nothing here"
        return _refused_body(scope["path"], headers) if scope["method"] == "POST" else None


def _refused_body(path: str, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
    length = headers.get(b"content-length", b"")
    if not length.isdigit():
        return 411, "how long is it?"
    most = MOST_BYTES if path == "/photos" else _MOST_ASKED
    if int(length) > most:
        return 413, f"at most {most:,} bytes"
    if path == "/photos" and b"x-photo" not in headers:  # which a form of another site cannot add
        return 400, "this is no photo of the page"
    return None


def is_flat(body: bytes) -> bool:
    """Whether the values of a question are numbers, texts and lists of them.

    >>> is_flat(b'{"data": [null, 12, ["kitchen"]]}'), is_flat(b'{"data": [{"path": "/etc/passwd"}]}')
    (True, False)
    """
    try:
        data = json.loads(body)["data"]
        inner = [value for each in data for value in (each if isinstance(each, list) else [each])]
        return not any(isinstance(value, dict | list) for value in inner)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


async def _whole(receive: Any) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    return body


def _again(body: bytes, receive: Any) -> Any:
    """A ``receive`` that begins with the whole body."""
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Any:
        return first.pop() if first else await receive()

    return received
