"""What the page asks of a real index: small, of drawn pictures and a small network."""

from pathlib import Path

import numpy as np
import pytest
from retrieval.galleries import key
from serving.small_page import draw
from small_model import modelled

from likeness.errors import LikenessError
from likeness.finding import Finder
from likeness.heads.linear import Identity
from likeness.retrieval.generation import Entries
from likeness.retrieval.index import Index
from likeness.serving.asking import Choice, respond
from likeness.serving.results import Photo, Query

COLOURS = {"kitchen": (220, 60, 60), "bathroom": (60, 60, 220)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for kind, (red, green, blue) in COLOURS.items():
        for home in range(3):
            draw(place / kind / f"home{home}.png", (red, green + 12 * home, blue))
    return place


@pytest.fixture(scope="module")
def finder(photos, tmp_path_factory) -> Finder:
    """Two kinds of three homes."""
    model = modelled(Identity)
    paths = sorted(photos.rglob("*.png"))
    index = Index.create(tmp_path_factory.mktemp("index") / "i", model.identity, model.width, {"title": "small"})
    names = [str(path) for path in paths]
    kinds, homes = [path.parent.name for path in paths], [path.stem for path in paths]
    keys = np.stack([key(name) for name in names])
    rows = Entries(model.encode(paths), keys, names, kinds, homes, [b"jpeg"] * len(paths), None)
    index.add([rows], model.identity)
    return Finder(index, model)


def shown(finders: list[Finder], query: Query, **choice) -> list[list[str]]:
    """``kind home`` of what each index shows."""
    asked, page = respond(finders, (query,), Choice(**choice), lambda jpeg: "x", arrived=True)
    assert 'role="alert"' not in page
    return [[f"{match.label} {match.home}" for match in matches] for matches in asked.shown]


def photo(photos: Path, kind: str, home: int) -> Photo:
    return Photo("a.png", (photos / kind / f"home{home}.png").read_bytes(), b"")


def test_a_photo_finds_itself_and_no_more_than_there_is_is_shown(finder, photos):
    query = Query(photos=(photo(photos, "kitchen", 1),))
    assert shown([finder], query, k=1) == [["kitchen home1"]]
    assert len(shown([finder], query, k=60)[0]) == 6
    of_a_kind = shown([finder], query, k=60, labels=["bathroom"])[0]
    assert sorted(of_a_kind) == [f"bathroom home{home}" for home in range(3)]


def test_a_row_is_searched_on_from_without_itself_and_by_its_picture_in_another_index(finder):
    match = finder.match(0, 1.0)
    one, two = shown([finder, finder], Query(match=match, side=0), k=60)
    assert (len(one), len(two)) == (5, 6)
    assert two[0] == f"{match.label} {match.home}"


def test_a_row_whose_file_is_gone_is_asked_with_by_its_thumbnail(finder, photos):
    thumbnail = (photos / "kitchen" / "home2.png").read_bytes()
    match = finder.match(0, 1.0)._replace(path="gone.png", thumbnail=thumbnail)
    assert shown([finder], Query(match=match, side=1), k=1) == [["kitchen home2"]]


def test_photos_of_a_home_find_their_home_first(finder, photos):
    query = Query(photos=(photo(photos, "kitchen", 2), photo(photos, "bathroom", 2)))
    assert {name.split()[1] for name in shown([finder], query, homes=True, k=1)[0]} == {"home2"}
    assert len({name.split()[1] for name in shown([finder], query, homes=True, k=60)[0]}) == 3


def test_the_page_begins_with_some_pictures_of_the_index(finder):
    asked, page = respond([finder], (), Choice(labels=["kitchen"]), lambda jpeg: "x", arrived=False)
    assert {match.label for match in asked.shown[0]} == {"kitchen"}
    assert "Drop a photo of a room" in page


def test_a_missing_index_is_told(tmp_path):
    with pytest.raises(LikenessError) as caught:
        Finder.open(tmp_path / "none")
    assert caught.value.code == "INDEX-MISSING"
