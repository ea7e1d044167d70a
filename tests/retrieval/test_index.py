"""A gallery on disk: what comes in, what goes out, and who is refused."""

import threading
import time

import numpy as np
import pytest
from retrieval.galleries import MODEL, WIDTH, entries, made

from likeness.errors import LikenessError
from likeness.retrieval import index as indices
from likeness.retrieval.index import Index


def shown(generation) -> dict:
    """Everything a reader sees, by id."""
    return {
        int(number): (
            generation.path(row),
            generation.label(row),
            generation.home(row),
            generation.picture(row),
            generation.codes[row].tolist(),
            bytes(generation.keys[row]),
        )
        for row, number in enumerate(generation.ids)
    }


def test_an_index_begins_empty(tmp_path):
    generation = made(tmp_path).newest()
    assert (generation.number, len(generation), generation.classes, generation.home_names) == (1, 0, (), ())
    assert generation.codes.shape == (0, WIDTH)


def test_what_was_added_is_there_as_it_was(tmp_path):
    index, given = made(tmp_path), entries(["kitchen/h1-a", "bath/h2-b", "front"])
    added = index.add([given], MODEL)
    assert added.ids.tolist() == [0, 1, 2]
    assert added.new.tolist() == [True, True, True]
    found = Index.open(tmp_path / "index").newest()
    assert (found.number, found.ids.tolist()) == (2, [0, 1, 2])
    assert found.classes == ("bath", "kitchen")
    assert found.labels.tolist() == [1, 0, -1]
    assert found.home_names == ("h1", "h2")
    assert found.homes.tolist() == [0, 1, -1]
    assert [found.path(row) for row in range(3)] == ["kitchen/h1-a.jpg", "bath/h2-b.jpg", "front.jpg"]
    assert found.picture(1) == b"jpeg of bath/h2-b"
    assert np.array_equal(found.codes.numpy(), given.codes)
    assert abs(time.time() - found.added[0]) < 60


def test_an_id_is_never_given_twice(tmp_path):
    index = made(tmp_path)
    index.add([entries(["a/h1-1", "a/h2-2"])], MODEL)
    index.remove(ids=[1])
    assert index.add([entries(["a/h2-2"])], MODEL).ids.tolist() == [2]


def test_many_batches_are_one_generation(tmp_path):
    index = made(tmp_path)
    added = index.add((entries([f"a/h{n}-x"]) for n in range(5)), MODEL)
    assert (added.generation.number, added.ids.tolist()) == (2, [0, 1, 2, 3, 4])


def test_the_same_picture_is_refused_by_path_and_date_and_nothing_is_added(tmp_path):
    index = made(tmp_path)
    index.add([entries(["a/h1-1"])], MODEL)
    with pytest.raises(
        LikenessError, match=r"INDEX-ID.*1 of 2.*\n.*a/h1-1.jpg: as a/h1-1.jpg, id 0 \(added 20\d\d-\d\d-\d\d\)"
    ):
        index.add([entries(["b/h9-9"]), entries(["c/h8-8", "a/h1-1"])], MODEL)
    assert list(shown(index.newest())) == [0]
    assert len(list((tmp_path / "index").glob("rows-*"))) == 1, "the batch before the refused one is cleared away"


def test_the_same_picture_may_be_passed_over(tmp_path):
    index = made(tmp_path)
    index.add([entries(["a/h1-1"])], MODEL)
    added = index.add([entries(["b/h9-9", "a/h1-1", "b/h9-9"])], MODEL, skip_present=True)
    assert added.ids.tolist() == [1, 0, 1]
    assert added.new.tolist() == [True, False, False]
    assert index.add([entries(["a/h1-1"])], MODEL, skip_present=True).generation.number == 3, "no new generation"


def test_a_picture_that_comes_twice_in_one_call_is_refused(tmp_path):
    twice = entries(["a/h1-1", "a/h1-1"])._replace(paths=["one.jpg", "copy.jpg"])
    with pytest.raises(LikenessError, match=r"copy.jpg: as one.jpg, id 0 \(in this same call\)"):
        made(tmp_path).add([twice], MODEL)


def test_ids_may_be_given_and_their_order_is_that_of_the_rows(tmp_path):
    index = made(tmp_path)
    index.add([entries(["a/h1-1", "a/h1-2"], ids=[7, 3])], MODEL)
    index.add([entries(["a/h1-3"], ids=[5])], MODEL)
    found = index.newest()
    assert found.ids.tolist() == [3, 5, 7]
    assert [found.path(row) for row in range(3)] == ["a/h1-2.jpg", "a/h1-3.jpg", "a/h1-1.jpg"]
    assert index.add([entries(["a/h1-4"])], MODEL).ids.tolist() == [8]


@pytest.mark.parametrize(("ids", "told"), [([7], "id 7"), ([-1], "below 0"), ([9, 9], "twice")])
def test_an_id_that_cannot_be_given_is_refused(tmp_path, ids, told):
    index = made(tmp_path)
    index.add([entries(["a/h1-1"], ids=[7])], MODEL)
    with pytest.raises(LikenessError, match=rf"INDEX-ID(.|\n)*{told}"):
        index.add([entries([f"b/h{n}-1" for n in range(len(ids))], ids=ids)], MODEL)


def test_pictures_leave_by_id_and_by_home(tmp_path):
    index = made(tmp_path)
    index.add([entries(["a/h1-1", "a/h2-1", "b/h2-2", "a/h3-1"])], MODEL)
    index.remove(ids=[0])
    assert list(shown(index.newest())) == [1, 2, 3]
    index.remove(homes=["h2"])
    found = index.newest()
    assert list(shown(found)) == [3]
    assert (found.classes, found.home_names) == (("a",), ("h3",)), "names that nobody has any more are gone"


def test_what_is_not_there_is_named_and_nothing_leaves(tmp_path):
    index = made(tmp_path)
    index.add([entries(["a/h1-1"])], MODEL)
    with pytest.raises(LikenessError, match=r"INDEX-ID(.|\n)*id 4\n.*home h7"):
        index.remove(ids=[0, 4], homes=["h7"])
    assert list(shown(index.newest())) == [0]


def test_another_model_is_refused_with_both_fingerprints(tmp_path):
    with pytest.raises(LikenessError, match=r"INDEX-MODEL(.|\n)*head: dddddddddddddddd in the index, ffff"):
        made(tmp_path).add([entries(["a/h1-1"])], {**MODEL, "head": "f" * 64})


@pytest.mark.parametrize(("value", "told"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_a_code_that_points_nowhere_is_refused(tmp_path, value, told):
    index, given = made(tmp_path), entries(["a/h1-1", "a/h1-2"])
    given.codes[1] = value
    with pytest.raises(LikenessError, match=told):
        index.add([given], MODEL)


def test_codes_of_another_width_are_refused(tmp_path):
    given = entries(["a/h1-1"])
    with pytest.raises(LikenessError, match="RETRIEVAL"):
        made(tmp_path).add([given._replace(codes=given.codes[:, :3])], MODEL)


def test_no_second_index_in_a_folder_and_none_where_none_is(tmp_path):
    made(tmp_path)
    with pytest.raises(LikenessError, match="INDEX-EXISTS"):
        made(tmp_path)
    with pytest.raises(LikenessError, match="INDEX-MISSING"):
        Index.open(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(LikenessError, match="an index is a folder, and a file has that name"):
        Index.create(tmp_path / "file", MODEL, 4)


def test_an_index_of_a_newer_version_is_left_alone(tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(indices, "SCHEMA", 9)
        made(tmp_path)
    with pytest.raises(LikenessError, match=r"INDEX-VERSION.*schema 9"):
        Index.open(tmp_path / "index")


def test_a_threshold_stays_until_another_is_given(tmp_path):
    index = made(tmp_path)
    index.calibrate({"value": 0.5})
    index.add([entries(["a/h1-1"])], MODEL)
    assert index.newest().threshold == {"value": 0.5}
    assert index.calibrate(None).threshold is None


def test_one_at_a_time_makes_few_segments(tmp_path):
    index = made(tmp_path)
    for number in range(40):
        index.add([entries([f"a/h{number}-1"])], MODEL)
    found = index.newest()
    assert found.ids.tolist() == list(range(40))
    assert len(found.parts) <= 6, "about the logarithm of the rows"
    assert {path.name for path in (tmp_path / "index").glob("generation-*")} == {
        "generation-00000040.json",
        "generation-00000041.json",
    }
    needed = {part.segment.name for number in (40, 41) for part in index._generation(number).parts}
    assert {path.name for path in (tmp_path / "index").glob("rows-*")} == needed


def test_a_segment_that_is_mostly_gone_is_written_anew(tmp_path):
    index = made(tmp_path)
    index.add([entries([f"a/h{number}-1" for number in range(10)])], MODEL)
    before = shown(index.newest())
    found = index.remove(ids=list(range(6)))
    assert [part.segment.length for part in found.parts] == [4]
    assert shown(found) == {number: before[number] for number in range(6, 10)}


def test_a_reader_keeps_its_generation_whatever_is_removed(tmp_path):
    index = made(tmp_path)
    index.add([entries(["a/h1-1", "b/h2-2"])], MODEL)
    old = index.newest()
    for number in range(5):
        index.add([entries([f"c/h{number}-9"])], MODEL)
    index.remove(homes=["h2"])
    assert [old.path(row) for row in range(len(old))] == ["a/h1-1.jpg", "b/h2-2.jpg"]
    assert old.picture(1) == b"jpeg of b/h2-2"
    assert old.codes.shape == (2, WIDTH)


def test_readers_beside_a_writer_see_whole_generations(tmp_path):
    index = made(tmp_path)
    states = {1: set()}
    for number in range(30):
        before = states[max(states)]
        if number % 3 == 2:
            victim = min(before)
            states[max(states) + 1] = before - {victim}
        else:
            states[max(states) + 1] = before | {len([n for n in range(number) if n % 3 != 2])}
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            found = Index.open(tmp_path / "index").newest()
            seen.append((found.number, set(found.ids.tolist())))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(30):
        if number % 3 == 2:
            index.remove(ids=[int(index.newest().ids.min())])
        else:
            index.add([entries([f"a/h{number}-1"])], MODEL)
    done.set()
    for reader in readers:
        reader.join()
    assert len({number for number, _ in seen}) > 1
    assert all(ids == states[number] for number, ids in seen)


def test_two_writers_without_locks_cannot_both_win(tmp_path, monkeypatch, caplog):
    def no_locks(self, *given, **named):
        raise OSError(37, "No locks available")

    index = made(tmp_path)
    monkeypatch.setattr("likeness.locking.FileLock.acquire", no_locks)

    def overtaken():
        other = Index.open(tmp_path / "index")
        other.add([entries(["b/h2-2"])], MODEL)
        yield entries(["a/h1-1"])

    with pytest.raises(LikenessError, match="INDEX-BUSY"):
        index.add(overtaken(), MODEL)
    assert [index.newest().path(0)] == ["b/h2-2.jpg"]
    assert "[LOCK]" in caplog.text
    assert index.add([entries(["a/h1-1"])], MODEL).ids.tolist() == [1]


def test_names_that_are_no_text_stay_as_they_are(tmp_path):
    index, given = made(tmp_path), entries(["a/h1-1"])
    index.add([given._replace(paths=["caf\udce9/\n,x.jpg"], labels=["ké"], homes=["h 1"])], MODEL)
    found = index.newest()
    assert (found.path(0), found.label(0), found.home(0)) == ("caf\udce9/\n,x.jpg", "ké", "h 1")


def test_a_damaged_segment_is_named_and_its_rows_given_up_only_when_asked(tmp_path):
    index = made(tmp_path)
    index.add([entries([f"a/h{n}-1" for n in range(8)])], MODEL)
    index.add([entries(["b/h9-9"])], MODEL)
    index.remove(ids=[2])
    assert list(index.verify()) == []
    large = max((tmp_path / "index").glob("rows-*"), key=lambda path: path.stat().st_size)
    data = bytearray(large.read_bytes())
    data[-1] ^= 1
    large.write_bytes(data)
    (fault,) = index.verify()
    assert large.name in fault.what
    assert fault.rows == 8
    generation, lost = index.mend()
    assert (generation.ids.tolist(), lost) == ([8], 7)
    assert list(index.verify()) == []
    assert list((tmp_path / "index").glob(f"{large.name}.damaged-*"))
    assert index.mend()[1] == 0


def test_a_damaged_generation_gives_way_to_the_one_before(tmp_path):
    index = made(tmp_path)
    index.add([entries(["a/h1-1"])], MODEL)
    index.remove(ids=[0])
    (tmp_path / "index" / "generation-00000003.json").write_text("{}")
    with pytest.raises(LikenessError, match="INDEX-DAMAGED"):
        index.newest()
    assert [fault.rows for fault in index.verify()] == [None]
    index.mend()
    assert index.newest().ids.tolist() == [0]
