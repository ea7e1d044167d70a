"""As much of a Qdrant server as the engine asks of one: its REST interface in front of the client's own local mode."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from qdrant_client import QdrantClient, models


class Served:
    """What the server holds, was asked, and asks for.

    Attributes:
        asked: Method, path and body of every request.
        failing: A pattern of ``METHOD /path``; what matches it is answered with 500.
    """

    def __init__(self, key: str | None) -> None:
        self.local, self.key = QdrantClient(":memory:"), key
        self.asked: list[tuple[str, str, Any]] = []
        self.failing: str | None = None
        self.url = ""

    def bodies(self, ending: str) -> list[Any]:
        return [body for _, path, body in self.asked if path.endswith(ending)]

    def answer(self, method: str, path: str, body: Any) -> Any:
        name, what = re.fullmatch(r"/collections/(\w+)/?(.*)", path).groups()
        match method, what:
            case "GET", "exists":
                return {"exists": self.local.collection_exists(name)}
            case "GET", "":
                return self.local.get_collection(name)
            case "PUT", "":
                vectors = models.VectorParams(**body["vectors"])
                return self.local.create_collection(name, vectors, metadata=body["metadata"])
            case "PATCH", "":
                return self.local.update_collection(name, metadata=body["metadata"])
            case "PUT", "index":
                return done()
            case "PUT", "points":
                return self.local.upsert(name, models.Batch(**body["batch"]))
            case "POST", "points/delete":
                return self.local.delete(name, models.PointIdsList(**body))
            case "POST", "points/count":
                return self.local.count(name)
            case "POST", "points/scroll":
                points, offset = self.local.scroll(
                    name, limit=body["limit"], offset=body.get("offset"), with_payload=body["with_payload"]
                )
                return {"points": points, "next_page_offset": offset}
            case "POST", "points/query/batch":
                asked = [models.QueryRequest(**{**search, "params": None}) for search in body["searches"]]
                return self.local.query_batch_points(name, asked)
        raise AssertionError(f"{method} {path} is not served")


def done() -> models.UpdateResult:
    return models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


@contextmanager
def serving(key: str | None = None) -> Iterator[Served]:
    """A server on this machine for as long as the block lasts, which asks for ``key`` if there is one."""
    served = Served(key)

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            path = self.path.partition("?")[0]
            served.asked.append((self.command, path, body))
            if served.key not in (None, self.headers.get("api-key")):
                return self.tell(401, {"status": {"error": "Must provide an API key"}})
            if served.failing and re.search(served.failing, f"{self.command} {path}"):
                return self.tell(500, {"status": {"error": "out of disk"}})
            return self.tell(200, {"result": served.answer(self.command, path, body), "status": "ok", "time": 0.0})

        do_GET = do_PUT = do_POST = do_PATCH = handle_any  # noqa: N815

        def tell(self, status: int, content: Any) -> None:
            text = json.dumps(content, default=lambda model: model.model_dump(mode="json")).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
