"""The server: what is closed, what is bounded, what is said when it cannot start."""

import json
import logging
import socket
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from faults.messages import assert_message
from helpers import called

from likeness.errors import LikenessError
from likeness.serving import server


def answer(address: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str]:
    connection = HTTPConnection(urlsplit(address).netloc, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def test_no_page_or_file_of_gradios_is_open_but_what_the_page_uses(pages):
    paths = """file=/etc/passwd file//etc/passwd proxy=http://127.0.0.1:9/ info openapi.json app_id runs vibe-code
        call/pick/1 stream/a/b/1/playlist-file component_server deep_link upload_progress"""
    for path in [f"/gradio_api/{path}" for path in paths.split()] + [
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/config",
    ]:
        assert answer(pages.one, path)[0] == 404, path
    paths = "run/pick call/pick api/pick component_server upload process_recording vibe-edit cancel"
    for path in paths.split():
        assert answer(pages.one, f"/gradio_api/{path}", "POST", b"{}")[0] == 404, path
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert answer(pages.one, "/", method)[0] == 404


@pytest.mark.parametrize(
    "path", ["/static/../../../etc/passwd", "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/assets//etc/passwd"]
)
def test_no_way_up_leads_to_a_file(pages, path):
    status, told = answer(pages.one, path)
    assert status >= 400
    assert "root:" not in told


FILE = {"path": "/etc/hostname", "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("value", [FILE, [FILE], [[FILE]], FILE | {"path": "http://127.0.0.1:9/a.png"}])
def test_nothing_in_a_question_passes_for_a_file_of_the_machine_or_an_address_to_fetch(pages, value):
    asked = {"data": [None, value, 12, []], "fn_index": 4, "session_hash": "thief"}
    body = json.dumps(asked).encode()
    assert answer(pages.one, "/gradio_api/queue/join", "POST", body, content_type="application/json")[0] == 400
    assert not server.is_flat(b"[]")
    assert not server.is_flat(b"{")
    assert [path for path in pages.tmp.rglob("*") if path.is_file()] == []


def test_a_page_of_another_site_cannot_ask_by_a_name_of_its_own(pages):
    assert answer(pages.one, "/", Host="evil.example")[0] == 400
    assert answer(pages.one, "/", Host="localhost:1")[0] == 200


def test_an_upload_is_the_pages_own_says_how_long_it_is_and_is_not_too_long(pages):
    assert answer(pages.one, "/photos", "POST", content_length="20000001", x_photo="1")[0] == 413
    assert answer(pages.one, "/photos", "POST", transfer_encoding="chunked", x_photo="1")[0] == 411
    assert answer(pages.one, "/photos", "POST", b"a")[0] == 400
    assert answer(pages.one, "/gradio_api/queue/join", "POST", content_length="65537")[0] == 413
    status, token = answer(pages.one, "/photos", "POST", b"a", x_photo="1")
    assert (status, len(token)) == (200, 43)


def test_the_browser_is_told_to_load_nothing_from_elsewhere(pages):
    connection = HTTPConnection(urlsplit(pages.one).netloc)
    connection.request("GET", "/")
    policy = connection.getresponse().headers["content-security-policy"]
    connection.close()
    assert policy.startswith("default-src 'self'; ")
    assert "http" not in policy


def test_a_taken_port_is_told_before_an_index_is_opened(tmp_path):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LikenessError) as caught:
            server.serve(tmp_path, None, "127.0.0.1", port, browser=False)
    what, where = "cannot be listened at", f"127.0.0.1:{port}"
    assert_message(caught.value, "SERVE", what=what, where=where, cause="Address already in use", fix="--port")


def test_without_gradio_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    done = called("serve", "--index", tmp_path, "--no-browser")
    assert done.code == 78
    assert "[CONFIG-EXTRA] likeness serve was asked for, and gradio is not installed." in done.err
    assert 'pip install "likeness[demo]"' in done.err


def test_another_host_is_listened_at_only_when_asked_and_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING), server.listening("0.0.0.0", 0):
        assert "[SERVE] whoever reaches 0.0.0.0" in caplog.text
    caplog.clear()
    for host in ("127.0.0.1", "localhost"):
        with server.listening(host, 0):
            assert caplog.text == ""
    with pytest.raises(LikenessError, match="cannot be listened at"):
        server.listening("192.0.2.1", 0)


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_a_port_that_is_none_is_refused(port):
    done = called("serve", "--index", "x", f"--port={port}")
    assert done.code == 2
    assert "is no port from 0 to 65535" in done.err
