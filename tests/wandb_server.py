"""A wandb server of one process: it keeps what a run sends, and says back what it was sent."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

_STREAM = re.compile(r"/files/[^/]+/[^/]+/([^/]+)/file_stream")


class WandbServer(ThreadingHTTPServer):
    """``runs``: by id, what arrived: config, history, summary, state, the identity, and the files' sizes.

    ``fails`` is an HTTP status that every request gets, or "gone": connections close without an answer; 0 is none.
    ``refuses`` rows: as a server does whose owner has used up what he paid for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, SimpleNamespace] = {}
        self.operations: list[str] = []
        self.fails: int | str = 0
        self.refuses = False
        self.lock = threading.Lock()

    def run(self, name: str) -> SimpleNamespace:
        new = SimpleNamespace(config={}, history=[], summary={}, identity={}, files={}, complete=None)
        return self.runs.setdefault(name, new)

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """What wandb's client asks by GraphQL, as far as a run needs it."""
        operation = re.search(r"(?:query|mutation) (\w+)", query)
        name = operation[1] if operation else ""
        self.operations.append(name)
        if name in ("Viewer", "GetDefaultEntity"):
            return {
                "viewer": {"id": "u", "entity": "tester", "username": "tester", "flags": "{}", "teams": {"edges": []}}
            }
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if name == "RunResumeStatus":
            return {
                "model": {"name": given["project"], "entity": {"name": "tester"}, "bucket": self._kept(given["name"])}
            }
        if name == "UpsertBucket":
            return {"upsertBucket": self._upserted(given)}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/put/{given['run']}/{file}"} for file in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":  # as if the server had these very bytes: nothing is to be sent
            sequence = {"id": "s", "name": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
            artifact = {"id": "a", "state": "COMMITTED", "versionIndex": 0, "artifactSequence": sequence}
            return {"createArtifact": {"artifact": artifact}}
        if name == "Run":
            return {"project": {"run": self._shown(given["name"])}}
        if name == "ArtifactType":
            return {"project": {"artifact": None}}
        if name == "UseArtifact":
            return {"useArtifact": {"artifact": {"id": "a", "digest": "d", "description": "", "state": "COMMITTED"}}}
        return {}

    def _upserted(self, given: dict[str, Any]) -> dict[str, Any]:
        inserted = given["name"] not in self.runs
        run = self.run(given["name"])
        if given.get("config"):
            run.config = {k: v["value"] for k, v in json.loads(given["config"]).items() if k != "_wandb"}
        told = ("groupName", "displayName", "jobType", "tags", "project")
        run.identity |= {name: given[name] for name in told if given.get(name)}
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "tester"}}
        bucket = {"id": "b", "name": given["name"], "displayName": given.get("displayName"), "project": project}
        return {"bucket": {**bucket, "config": "{}", "historyLineCount": len(run.history)}, "inserted": inserted}

    def _kept(self, name: str) -> dict[str, Any] | None:
        if name not in self.runs:
            return None
        run = self.runs[name]
        config = {name: {"value": value} for name, value in run.config.items()} | {"_wandb": {"value": {}}}
        return {
            "id": "b",
            "name": name,
            "displayName": run.identity.get("displayName"),
            "config": json.dumps(config),
            "summaryMetrics": json.dumps(run.summary),
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "historyLineCount": len(run.history),
            "eventsTail": "[]",
            "eventsLineCount": 0,
            "logLineCount": 0,
            "tags": [],
            "wandbConfig": '{"t": 1}',
        }

    def _shown(self, name: str) -> dict[str, Any]:
        """A run as the public interface asks for it."""
        state = {None: "running", 0: "finished"}.get(self.runs[name].complete, "failed")
        return {"id": "b", "name": name, "state": state, "config": "{}", "summaryMetrics": "{}", "tags": []}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """A part of a run's history, and its summary so far."""
        run, files = self.run(name), sent.get("files") or {}
        if rows := files.get("wandb-history.jsonl"):
            assert rows["offset"] == len(run.history), "a row came twice, or one is missing"
            run.history += [json.loads(row) for row in rows["content"]]
        if rows := files.get("wandb-summary.json"):
            run.summary = json.loads(rows["content"][-1])
        if sent.get("complete") is not None:
            run.complete = sent["exitcode"]


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self._content()
        if not self._works():
            return None
        with self.server.lock:
            if found := _STREAM.match(self.path):
                if self.server.refuses:
                    return self._reply({"error": "quota"}, 403)
                self.server.stream(found[1], json.loads(content))
                return self._reply({"exitcode": None, "limits": {}})
            asked = json.loads(content)
            return self._reply({"data": self.server.answer(asked["query"], asked.get("variables") or {})})

    def do_PUT(self) -> None:
        content = self._content()
        if not self._works():
            return
        with self.server.lock:
            _, _, name, file = self.path.split("/", 3)
            self.server.run(name).files[file] = content
        self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def _works(self) -> bool:
        if isinstance(fails := self.server.fails, int) and fails:
            self._reply({"error": "out of order"}, fails)
        self.close_connection = self.close_connection or fails == "gone"
        return not fails

    def _content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reply(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client goes when it has been told all
            super().handle()

    def log_message(self, *parts: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[WandbServer]:
    """A server on a free port of this machine, while the block runs."""
    server = WandbServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
