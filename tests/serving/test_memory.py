"""What the server holds is bounded."""

from likeness.serving import memory
from likeness.serving.memory import Thumbnails, Uploads


def test_the_last_thumbnails_are_kept(monkeypatch):
    monkeypatch.setattr(memory, "_MOST_THUMBNAILS", 2)
    kept = Thumbnails()
    a, b = kept.address(b"a"), kept.address(b"b")
    assert kept.address(b"a") == a
    c = kept.address(b"c")
    names = [address.removeprefix("thumbnails/") for address in (a, b, c)]
    assert [kept.get(name) for name in names] == [b"a", None, b"c"]


def test_a_photo_is_taken_once_and_the_oldest_that_wait_are_dropped(monkeypatch):
    monkeypatch.setattr(memory, "_MOST_WAITING", 5)
    waiting = Uploads()
    names = [waiting.put(data) for data in (b"123", b"45", b"6")]
    assert [waiting.take(name) for name in names] == [None, b"45", b"6"]
    assert waiting.take(names[1]) is None
