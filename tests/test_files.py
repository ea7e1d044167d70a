"""Files are whole or absent, whatever fails in between; a digest does not depend on spelling."""

import errno
import json
import os
import socket
import subprocess
import sys

import pytest

from likeness.errors import LikenessError
from likeness.files import canonical_json, digest, sweep_temporary, write_atomic, write_json, writing


def failing(number: int):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def test_content_arrives_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    for content in (b"first", b"", b"second\x00\xff"):
        write_atomic(path, content)
        assert path.read_bytes() == content
        assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("step", ["replace", "fsync"])
@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [
        (errno.ENOSPC, "DISK", 74),
        (errno.EIO, "DISK", 74),
        (errno.EACCES, "STORE-PERM", 73),
        (errno.EROFS, "STORE-PERM", 73),
    ],
)
def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch, step, number, code, exit_code):
    path = tmp_path / "file"
    write_atomic(path, b"earlier")
    monkeypatch.setattr(os, step, failing(number))
    with pytest.raises(LikenessError) as caught:
        write_atomic(path, b"later")
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
    assert caught.value.where == str(path)
    assert os.strerror(number) in caught.value.cause
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_written_in_parts_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with writing(path) as file:
        file.write(b"one ")
        assert not path.exists()
        file.write(b"two")
    assert path.read_bytes() == b"one two"
    with pytest.raises(TypeError), writing(path) as file:
        file.writelines([b"half", "no bytes"])
    assert path.read_bytes() == b"one two"
    assert os.listdir(tmp_path) == ["file"]


def test_a_first_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", failing(errno.ENOSPC))
    with pytest.raises(LikenessError, match="DISK"):
        write_atomic(tmp_path / "file", b"x" * 1_000_000)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_is_a_message(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LikenessError) as caught:
        write_atomic(tmp_path / "file" / "inner", b"x")
    assert (caught.value.code, (tmp_path / "file").read_text()) == ("DISK", "in the way")


def test_the_temporary_file_lies_beside_its_target_and_names_its_writer(tmp_path, monkeypatch):
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (seen.append(paths), replace(*paths)))
    write_atomic(tmp_path / "file", b"x")
    (temporary, target), *_ = seen
    assert target == tmp_path / "file"
    assert temporary.parent == tmp_path
    assert temporary.name.startswith(f".tmp-{socket.gethostname()}-{os.getpid()}-")


def test_write_json_is_read_back_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2.5, None, "ü"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2.5, None, "ü"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["x"][0] == 1


def test_canonical_json_is_one_spelling():
    assert canonical_json({"b": [1, 2.5, None, True], "a": "ü"}) == '{"a":"\\u00fc","b":[1,2.5,null,true]}'


def test_a_digest_sees_values_and_not_their_order():
    # printf '{"a":[2,3],"b":1}' | sha256sum
    expected = "2aae3bfa906be39530e7d7a4aa90a7e6d4f29c33e3ac80e1c3b05598c5953c04"
    assert digest({"b": 1, "a": [2, 3]}) == digest({"a": [2, 3], "b": 1}) == expected
    assert digest({"a": [3, 2], "b": 1}) != expected
    assert digest({"a": 1}) != digest({"a": 1.0})
    assert digest({"a": None}) != digest({})


@pytest.mark.fault("F24")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_digest_refuses_what_json_has_not(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": [value]})


@pytest.mark.fault("F24")
@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), 1j])
def test_a_digest_refuses_unknown_types_by_name(value):
    with pytest.raises(TypeError, match=type(value).__name__):
        digest({"a": value})


def test_what_dead_writers_of_this_host_left_is_swept_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    kept = {f".tmp-{host}-{os.getpid()}-aa", f".tmp-{host}-1-aa", f".tmp-other{host}-{dead.pid}-aa", "file"}
    for name in kept | {f".tmp-{host}-{dead.pid}-aa", f".tmp-{host}-{dead.pid}-bb"}:
        (tmp_path / name).touch()
    assert sweep_temporary(tmp_path) == 2
    assert set(os.listdir(tmp_path)) == kept
    assert sweep_temporary(tmp_path) == 0
