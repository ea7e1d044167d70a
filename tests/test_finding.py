"""Pictures and homes found in an index: from photos to what a user reads, through the commands they type."""

import io
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import small_model
from PIL import Image
from torch.nn.functional import normalize

from likeness import finding, indexing, querying
from likeness.app import main
from likeness.commands.query import RULES
from likeness.errors import LikenessError
from likeness.finding import Finder
from likeness.heads.linear import Identity
from likeness.retrieval import homes, qdrant_engine
from likeness.retrieval.index import Index

COLOURS = {"bath": (40, 60, 220), "kitchen": (220, 60, 40)}


@pytest.fixture(scope="session")
def model():
    return small_model.modelled(Identity, scaling="none")


@pytest.fixture
def photos(tmp_path):
    """Of three homes a blue and a red picture each, ``KIND/home1-a.png``; the homes differ in brightness."""
    for kind, colour in COLOURS.items():
        for home in (1, 2, 3):
            path = tmp_path / "photos" / kind / f"home{home}-a.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(home + 10 * len(kind))
            noise = rng.integers(0, 30, (20, 20, 3))
            Image.fromarray((np.array(colour) // 4 * home + noise).astype(np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def finder(tmp_path, photos, model, monkeypatch):
    monkeypatch.setattr(indexing, "model_of", lambda index: model)
    monkeypatch.setenv("LIKENESS_STORE", str(tmp_path / "store"))
    card = {**model.card, "store": str(tmp_path / "store"), "fingerprint": model.extractor.fingerprint}
    object.__setattr__(model, "card", card)
    index = Index.create(tmp_path / "index", model.identity, model.width, {"title": "small"})
    indexing.add(index, [photos], home_pattern=r"home\d")
    return Finder(index, model)


def names(found) -> list[str]:
    return [f"{match.label} {match.home}" for match in found.matches]


def test_a_picture_finds_itself_first_and_its_kind_next(finder, photos):
    found = finder.find([photos / "bath" / "home2-a.png"], 3)
    assert names(found)[0] == "bath home2"
    assert found.matches[0].similarity == pytest.approx(1.0)
    assert {match.label for match in found.matches} == {"bath"}
    assert found.known is None, "no threshold was calibrated"
    assert set(found.milliseconds) == {"decode", "forward", "head", "search"}
    with Image.open(photos / "bath" / "home2-a.png") as image:
        assert names(finder.find([image.copy()], 3)) == names(found)


def test_the_order_is_that_of_cosines_in_float64(finder, photos):
    query = finder.model.encode([photos / "kitchen" / "home1-a.png"]).astype(np.float64)[0]
    codes = finder.generation.codes.numpy().astype(np.float64)
    cosines = codes @ query / np.linalg.norm(codes, axis=1) / np.linalg.norm(query)
    found = finder.find([photos / "kitchen" / "home1-a.png"], 6)
    assert [match.id for match in found.matches] == np.argsort(-cosines, kind="stable").tolist()
    assert [match.similarity for match in found.matches] == pytest.approx(sorted(cosines, reverse=True), abs=1e-6)


def test_another_engine_finds_the_same(finder, photos):
    pytest.importorskip("faiss", reason="faiss is not installed (the faiss extra has it)")
    query = [photos / "kitchen" / "home1-a.png"]
    flat = Finder(finder.index, finder.model, "flat")
    assert flat.find(query, 6).matches == finder.find(query, 6).matches


def test_qdrant_finds_the_same_whatever_enters_and_leaves(finder, photos):
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed (the qdrant extra has it)")
    query = [photos / "kitchen" / "home1-a.png"]
    other = Finder(finder.index, finder.model, qdrant_engine.made_in("homes", ":memory:", finder.index.model))
    assert other.find(query, 6).matches == finder.find(query, 6).matches
    finder.index.remove(homes=["home2"])
    assert len(other.find(query, 6).matches) == 4
    assert other.find(query, 2, labels=["bath"]).matches == finder.find(query, 2, labels=["bath"]).matches


def test_the_command_asks_qdrant_in_the_collection_that_is_called_as_the_index(finder, photos, monkeypatch, capsys):
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed (the qdrant extra has it)")
    asked, connect = [], qdrant_engine.connect
    monkeypatch.setattr(finding, "model_of", lambda index: finder.model)
    monkeypatch.setattr(qdrant_engine, "connect", lambda url: asked.append(url) or connect(":memory:"))
    query = ["query", str(photos / "bath" / "home3-a.png"), "--index", str(finder.index.folder), "-k", "1", "--json"]
    for words in (["--engine", "exact"], ["--engine", "qdrant"], ["--engine", "qdrant", "--url", "http://there:6333"]):
        main([*query, *words])
        assert json.loads(capsys.readouterr().out)["matches"][0]["home"] == "home3"
    assert asked == [":memory:", "http://there:6333"]


def test_filters_leave_what_they_name(finder, photos):
    red = photos / "kitchen" / "home1-a.png"
    assert {match.label for match in finder.find([red], 6, labels=["bath"]).matches} == {"bath"}
    assert set(names(finder.find([red], 6, homes=["home3"]))) == {"bath home3", "kitchen home3"}
    assert names(finder.find([red], 6, labels=["bath"], homes=["home3"])) == ["bath home3"]
    with pytest.raises(LikenessError, match=r"INDEX-ID(.|\n)*no label attic(.|\n)*bath, kitchen"):
        finder.find([red], 6, labels=["attic"])


def test_a_row_finds_the_others(finder):
    first = finder.find_id(0, 6)
    assert 0 not in [match.id for match in first.matches]
    assert len(first.matches) == 5
    with pytest.raises(LikenessError, match="INDEX-ID"):
        finder.find_id(99, 1)


def test_a_home_finds_itself(finder, photos):
    home = [photos / kind / "home2-a.png" for kind in COLOURS]
    for rule in ("mean", "best_pair", "by_kind", "assignment"):
        found = finder.find_homes(home, 2, rule=rule)
        assert found.matches[0].home == "home2", rule
        assert {match.label for match in found.matches[0].pictures} == {"bath", "kitchen"}, rule
        assert found.matches[0].similarity == pytest.approx(1.0), rule


def test_homes_are_compared_without_what_their_kinds_share_where_enough_are_known(finder, photos, monkeypatch):
    home = [photos / "kitchen" / "home1-a.png"]

    def found(rule=None):
        return [(match.home, match.similarity) for match in finder.find_homes(home, 9, rule=rule).matches]

    assert found() == found("mean") != found("centred_mean")
    monkeypatch.setattr(finding, "_FEWEST_HOMES", len(finder.homes))
    assert found() == found("centred_mean")


def test_a_change_is_seen_by_a_finder_that_is_open(finder, photos):
    Index.open(finder.index.folder).remove(homes=["home2"])
    assert "bath home2" not in names(finder.find([photos / "bath" / "home2-a.png"], 6))
    assert finder.size == 4


def test_an_empty_index_finds_nothing(tmp_path, model, photos):
    empty = Finder(Index.create(tmp_path / "none", model.identity, model.width), model)
    assert empty.find([photos / "bath" / "home1-a.png"], 3).matches == []
    assert empty.find_homes([photos / "bath" / "home1-a.png"], 3).matches == []
    assert empty.sample(4) == []


def test_what_is_like_nothing_is_told_by_a_threshold_from_held_out_pictures(finder, photos, tmp_path):
    held_out = tmp_path / "held" / "bath"
    held_out.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(20):
        pixels = np.array(COLOURS["bath"]) // 4 * 2 + rng.integers(0, 30, (20, 20, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(held_out / f"{number}.png")
    threshold = indexing.calibrated(finder.index, [held_out], rate=0.1)
    assert (threshold.rate, threshold.n) == (0.1, 20)
    assert finder.find([held_out / "0.png"], 1).threshold == threshold.value
    scores = [finder.find([path], 1).nearest for path in sorted(held_out.iterdir())]
    assert sum(score < threshold.value for score in scores) == 1, "floor(0.1 * 21) = 2 of them are not above it"
    with pytest.raises(LikenessError, match="6 of 6 pictures to calibrate on are in the index"):
        indexing.calibrated(finder.index, [photos])


def test_another_index_of_the_same_pictures_may_say_what_is_known(finder, photos, tmp_path, monkeypatch, capsys):
    frozen = finder.model.frozen()
    other = Index.create(tmp_path / "frozen", frozen.identity, frozen.width, {"frozen": True})
    monkeypatch.setattr(indexing, "model_of", lambda index: frozen)
    indexing.add(other, [photos])
    monkeypatch.setattr(finding, "model_of", lambda index: frozen if index.about.get("frozen") else finder.model)
    query = ["query", str(photos / "bath" / "home1-a.png"), "--index", str(finder.index.folder), "--json"]
    query += ["--known-by", str(other.folder)]
    with pytest.raises(SystemExit):
        main(query)
    assert f"likeness index calibrate {other.folder} HELD_OUT" in capsys.readouterr().err
    finder.index.calibrate({"value": -1.0, "rate": 0.05, "n": 99})  # all are known
    for threshold, known in ((1.5, False), (-1.0, True)):
        other.calibrate({"value": threshold, "rate": 0.05, "n": 99})
        main(query)
        told = json.loads(capsys.readouterr().out)
        assert (told["known"], told["threshold"], len(told["matches"])) == (known, threshold, 5)
    main(query[:-2])
    assert json.loads(capsys.readouterr().out)["threshold"] == -1.0


def test_near_duplicates_are_pairs_that_are_told_once(finder):
    pairs = indexing.near_duplicates(finder.generation, above=-1.0)
    assert len({(pair.one, pair.other) for pair in pairs}) == len(pairs)
    assert all(pair.one < pair.other for pair in pairs)
    assert [pair.similarity for pair in pairs] == sorted((pair.similarity for pair in pairs), reverse=True)
    assert indexing.near_duplicates(finder.generation, above=1.1) == []


def test_as_many_pairs_are_shown_as_are_asked_for(finder, capsys):
    main(["index", "duplicates", str(finder.index.folder), "--above", "-1", "--most", "2"])
    first, *shown, rest = capsys.readouterr().out.splitlines()
    pairs = indexing.near_duplicates(finder.generation, above=-1.0)
    assert first == f"{len(pairs)} pairs look the same (cosine of -1 or more):"
    assert [line.split()[1] for line in shown] == [str(pair.one) for pair in pairs[:2]]
    assert rest == f"  … and {len(pairs) - 2} more"


def test_near_duplicates_of_some_pictures_are_the_pairs_that_have_one_of_them(finder, monkeypatch):
    codes = normalize(finder.generation.codes.double(), dim=1)
    cosines = (codes @ codes.T).numpy()
    assert (np.triu(cosines, 1) >= 0.9).nonzero()[0].tolist() == [0, 1], "0 and 1, 1 and 2 look the same"
    book = [(1, 2, pytest.approx(cosines[1, 2], abs=1e-6)), (0, 1, pytest.approx(cosines[0, 1], abs=1e-6))]
    monkeypatch.setattr(indexing, "_ASKED_AT_ONCE", 2)
    for among, expected in (([1], book), ([0], book[1:]), ([0, 1, 2], book), ([3, 4, 5], []), (None, book)):
        given = None if among is None else np.array(among)
        pairs = indexing.near_duplicates(finder.generation, given, above=0.9)
        assert [(pair.one, pair.other, pair.similarity) for pair in pairs] == expected, among


def test_no_writer_waits_while_thumbnails_are_made(finder, photos, monkeypatch):
    """Held by the one that adds, the lock would keep the removal waiting, and the test with it."""
    decoded, thumbnail, folder = [], indexing._thumbnail, finder.index.folder

    def removing(model, path):
        if path.name == "new0.png":
            Index.open(folder).remove(homes=["home3"])
        decoded.append(path.name)
        return thumbnail(model, path)

    monkeypatch.setattr(indexing, "_thumbnail", removing)
    monkeypatch.setattr(indexing, "_BYTES_IN_MEMORY", 1)  # so that they lie on disk
    for number in range(5):
        Image.fromarray(np.full((20, 20, 3), 50 * number, np.uint8)).save(photos / f"new{number}.png")
    added = indexing.add(finder.index, sorted(photos.glob("new*.png")))
    now = added.generation
    assert sorted(decoded) == [f"new{number}.png" for number in range(5)]
    assert [Path(now.path(row)).name for row in range(4, 9)] == [f"new{number}.png" for number in range(5)]
    shown = [Image.open(io.BytesIO(now.picture(row))).getpixel((9, 9))[0] for row in range(4, 9)]
    assert shown == pytest.approx([0, 50, 100, 150, 200], abs=2)
    assert not list(folder.glob("tmp*"))


def test_pictures_that_are_there_are_refused_before_a_thumbnail_is_made(finder, photos, monkeypatch):
    monkeypatch.setattr(indexing, "_thumbnail", lambda *_: pytest.fail("it was refused before"))
    with pytest.raises(LikenessError, match=r"INDEX-ID.*6 of 6 pictures are in the index already.*\n.*id 0 \(added"):
        indexing.add(finder.index, [photos])
    for name in ("new", "copy"):
        Image.fromarray(np.full((20, 20, 3), 77, np.uint8)).save(photos / f"{name}.png")
    with pytest.raises(LikenessError, match=r"INDEX-ID.*1 of 2 (.|\n)*new.png.*\(in this same call\)"):
        indexing.add(finder.index, [photos / "new.png", photos / "copy.png"])


def test_who_adds_pictures_may_leave_out_the_search_for_those_that_look_the_same(finder, photos, monkeypatch, capsys):
    monkeypatch.setattr(indexing, "near_duplicates", lambda *_: pytest.fail("it was left out"))
    for number, words in enumerate((["--no-duplicates"], [])):
        path = photos / f"new{number}.png"
        Image.fromarray(np.full((20, 20, 3), 99 + number, np.uint8)).save(path)
        with pytest.raises(pytest.fail.Exception) if not words else nullcontext():
            main(["index", "add", str(finder.index.folder), str(path), *words])
        assert "1 pictures added, 0 were there" in capsys.readouterr().out


def test_codes_of_another_model_are_refused(finder, model):
    with pytest.raises(LikenessError, match="INDEX-MODEL"):
        Finder(finder.index, model.frozen())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["index", "info", "nowhere"], "INDEX-MISSING"),
        (["index", "add", "nowhere"], "name pictures"),
        (["index", "remove", "nowhere"], "name what is to leave"),
        (["query", "a.jpg", "--index", "nowhere"], "INDEX-MISSING"),
        (["query", "a.jpg", "--index", "nowhere", "-k", "0"], "at least 1"),
        (["query", "a.jpg", "--index", "nowhere", "--gallery", "found"], "found ends in none of .png"),
        (["query", "a.jpg", "--index", "nowhere", "--homes", "--home", "home1"], "not --homes"),
        (["query", "a.jpg", "--index", "nowhere", "--rule", "by_kind"], "give --homes too"),
        (["query", "a.jpg", "--index", "nowhere", "--homes", "--rule", "mode"], "choose from 'mean', 'best_pair'"),
        (["index", "add", "nowhere", "a", "--home", "h", "--home-pattern", "h"], "give one of them"),
        (["index", "duplicates", "nowhere", "--above", "nan"], "a cosine is -1 to 1"),
        (["index", "duplicates", "nowhere", "--most", "0"], "--most: 0, at least 1"),
        (["index", "calibrate", "nowhere", "a", "--rate", "5"], "5 is not between 0 and 1"),
        (["query", "a.jpg", "--index", "nowhere", "--url", "http://there:6333"], "of --engine qdrant, not of exact"),
        (["query", "a.jpg", "--index", "nowhere", "--engine", "qdrant"], "INDEX-MISSING"),
    ],
)
def test_a_wrong_command_is_refused_in_words(words, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code
    assert told in capsys.readouterr().err


def test_a_rule_may_be_chosen_that_homes_are_compared_by():
    assert RULES == homes.RULES


def test_in_a_picture_of_homes_each_has_a_row_with_its_rank_and_its_own_similarity(finder, photos):
    query = [str(photos / "bath" / "home2-a.png"), str(photos / "kitchen" / "home2-a.png")]
    found = finder.find_homes(query, 2)
    first, second = querying.gallery_rows(found, query)
    assert first.note == "1. home2: 1.000"
    assert [picture.label for picture in first.neighbours] == ["bath home2", "kitchen home2"]
    assert second.note == f"2. {found.matches[1].home}: {found.matches[1].similarity:.3f}"


def test_in_a_picture_of_pictures_five_are_in_a_row_and_the_next_row_says_where_it_begins(finder, photos):
    query = [str(photos / "bath" / "home2-a.png")]
    first, second = querying.gallery_rows(finder.find(query, 6), query)
    assert (len(first.neighbours), first.note) == (5, "")
    assert (len(second.neighbours), second.note) == (1, "from nearest 6")


def test_a_query_that_is_a_folder_is_refused_in_words(finder, photos):
    with pytest.raises(LikenessError, match=r"bath: Is a directory\n(.|\n)*not a folder"):
        finder.find([photos / "bath"], 1)


def test_removal_and_facts_by_command(finder, capsys):
    folder = str(finder.index.folder)
    main(["index", "remove", folder, "--home", "home1"])
    assert "2 pictures removed; 4 are left" in capsys.readouterr().out
    main(["index", "info", folder, "--json"])
    assert json.loads(capsys.readouterr().out)["kinds"] == {"bath": 2, "kitchen": 2}
    main(["index", "info", folder])
    told = capsys.readouterr().out
    assert "kinds        bath 2, kitchen 2\n" in told
    assert "threshold    –\n" in told
    main(["index", "verify", folder])
    assert capsys.readouterr().out == "4 pictures, every byte as it was written\n"


def test_what_is_damaged_says_what_it_costs_before_it_is_mended(finder, capsys):
    folder = str(finder.index.folder)
    (segment,) = finder.index.folder.glob("rows-*")
    whole = bytearray(segment.read_bytes())
    whole[-3] ^= 1
    segment.write_bytes(whole)
    with pytest.raises(SystemExit, match="65"):
        main(["index", "verify", folder])
    assert capsys.readouterr().out.startswith(f"damaged, at the cost of 6 pictures: {segment.name}: ")
    main(["index", "verify", folder, "--mend"])
    assert "mended: 6 pictures are lost, 0 are left" in capsys.readouterr().out


def test_pictures_whose_file_is_gone_are_told_of_and_stay(finder, photos, capsys):
    (photos / "bath" / "home2-a.png").unlink()
    main(["index", "verify", str(finder.index.folder)])
    told = capsys.readouterr().out
    assert told.startswith("6 pictures, every byte as it was written\nof 1 the file is not where it was (first: ")
    assert str(photos / "bath" / "home2-a.png") in told
