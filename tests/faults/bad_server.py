"""A web server on this machine that answers as servers, proxies and networks do on bad days."""

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Answers(http.server.BaseHTTPRequestHandler):
    """One file, whatever the path; paths that begin with ``/missing`` are not there.

    Attributes:
        content: The file.
        status: Of every answer, where it is not 200.
        page: What a proxy answers in the place of everything, as if it were that.
        cut_at: The connection ends after so many bytes, if it began at the first.
        resumes: Whether a part can be asked for.
        stalled: With ``cut_at``: what comes after stays away until this is set.
        silent: Nothing is answered before this is set.
        piece: Bytes that come at once, each 20 ms.
        asked: The range of each request.
    """

    content = b""
    status = 200
    page = b""
    cut_at: int | None = None
    resumes = True
    stalled: threading.Event | None = None
    silent: threading.Event | None = None
    piece = 0
    asked: list[str | None]

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if self.resumes else 0
        self.asked.append(self.headers.get("Range"))
        if self.silent:
            self.silent.wait(10)
        elif self.status != 200 or self.path.startswith("/missing"):
            self.send_error(404 if self.path.startswith("/missing") else self.status)
        elif self.page:
            self._send(200, self.page)
        elif start >= len(self.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.end_headers()
        else:
            self._send(206 if start else 200, self.content[start:], None if start else self.cut_at)
            if self.stalled and not start:
                self.stalled.wait(10)

    def _send(self, status: int, body: bytes, cut_at: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[:cut_at]
        for at in range(0, len(sent), self.piece or len(sent) or 1):
            self.wfile.write(sent[at : at + (self.piece or len(sent))])
            time.sleep(0.02 if self.piece else 0)

    def log_message(self, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None:
        """Whoever asked has hung up."""


@contextmanager
def serving(content: bytes) -> Iterator[tuple[type[Answers], str]]:
    """How it answers, to be changed at any time, and where it is asked."""
    answers = type("Answers", (Answers,), {"content": content, "asked": []})
    server = _Server(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield answers, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
