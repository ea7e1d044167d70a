"""What a reader asks, without a browser."""

import pytest
from faults.pictures import corpus, encoded, plain
from serving.fake_finder import FakeFinder

from likeness.errors import LikenessError
from likeness.serving import asking
from likeness.serving.asking import Asked, Choice, photos_of, picked, respond, with_photos
from likeness.serving.memory import Upload
from likeness.serving.results import Photo, Query

RED = encoded(plain("RGB", (220, 60, 60)))
ROWS = [("kitchen", "home0", "a", None), ("kitchen", "home1", "b", None), ("bathroom", "home0", "c", None)]
CODES = [[92.5, -67.5, -67.5], [92.5, -60, -67.5], [-67.5, -67.5, 92.5]]
PHOTO = Photo("red.png", RED, b"")


def finder(title: str = "head", **options) -> FakeFinder:
    return FakeFinder(title, ROWS, CODES, **options)


def sent(name: str, data: bytes) -> Upload:
    return Upload(name, data, len(data))


def asked(query: Query, choice: Choice, finders=None) -> Asked:
    return respond(finders or [finder()], (query,), choice, lambda jpeg: "x", arrived=True)[0]


@pytest.mark.fault("F01", "F02", "F04", "F09")
def test_of_hostile_files_each_is_a_photo_or_is_refused_by_name():
    for picture in corpus():
        photos, fault = photos_of([sent(picture.name, picture.data)])
        assert bool(photos) != bool(fault), picture.name
        if picture.code:
            assert (fault.code, fault.what) == ("IMG-BAD", "This photo cannot be used.")
            assert fault.where.startswith(f"{picture.name}: [{picture.code}] ")


def test_good_photos_are_used_and_the_bad_ones_named():
    photos, fault = photos_of([sent("red.png", RED), sent("empty.jpg", b"")])
    assert [photo.name for photo in photos] == ["red.png"]
    assert photos[0].thumbnail.startswith(b"\xff\xd8\xff")
    assert (fault.what, fault.where) == (
        "1 of 2 photos cannot be used.",
        "empty.jpg: [IMG-TRUNCATED] the file is empty",
    )


def test_a_photo_is_bounded_in_bytes_and_a_query_in_photos(monkeypatch):
    monkeypatch.setattr(asking, "MOST_BYTES", len(RED) - 1)
    photos, fault = photos_of([sent("red.png", RED)])
    assert not photos
    assert fault.where == f"red.png: [IMG-TOO-LARGE] {len(RED)} bytes, limit {len(RED) - 1}"
    trail, fault = with_photos((), [PHOTO] * 9)
    assert len(trail[-1].photos) == 8
    assert fault.what == "9 photos are too many: the first 8 are taken."
    assert with_photos((), [PHOTO])[1] is None


def test_a_photo_that_did_not_arrive_is_said_so():
    assert "red.png: [IMG-TRUNCATED] it did not arrive" in photos_of([Upload("red.png", None, 9)])[1].where


def test_photos_are_kept_as_far_back_as_memory_is_set_apart(monkeypatch):
    monkeypatch.setattr(asking, "_MOST_KEPT", 2 * len(RED))
    trail = ()
    for _ in range(4):
        trail = with_photos(trail, [PHOTO])[0]
    assert len(trail) == 2
    assert len(with_photos(trail, [PHOTO] * 5)[0]) == 1


def test_only_what_is_on_show_is_searched_on_from():
    shown = asked(Query(photos=(PHOTO,)), Choice(k=2))
    assert [match.id for match in shown.shown[0]] == [0, 1]
    assert picked(shown, 0, 1).match.home == "home1"
    for side, row in ((0, 2), (1, 0), (-1, 0), (0, 10**30)):
        assert picked(shown, side, row) is None


def test_the_index_that_a_row_is_of_asks_by_its_number_and_another_by_the_picture(tmp_path):
    path = tmp_path / "b.png"
    path.write_bytes(RED)
    query = Query(match=finder()._match(1, 1.0)._replace(path=str(path)), side=0)
    shown = asked(query, Choice(k=3), [finder(), finder("frozen")])
    assert [match.id for match in shown.shown[0]] == [0, 2]  # without itself
    assert [match.id for match in shown.shown[1]] == [0, 1, 2]


def test_homes_are_found_and_their_pictures_can_be_searched_on_from():
    shown = asked(Query(photos=(PHOTO,)), Choice(homes=True, k=1))
    assert [match.home for match in shown.shown[0]] == ["home1"]


def test_a_refusal_of_an_index_is_shown_in_its_place():
    def refuse(pictures):
        raise LikenessError("DATA-MISSING", "a picture cannot be read.", fix="Give another file.")

    shown, page = respond([finder(encode=refuse)], (Query(photos=(PHOTO,)),), Choice(), lambda jpeg: "x", arrived=False)
    assert shown.shown == ((),)
    assert "a picture cannot be read." in page
