"""An index that is changed at random, cut off at every step, or damaged: always the old state or the new one."""

import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from faults.kill_points import killed_at_each_step
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from retrieval.galleries import MODEL, WIDTH, entries, made

from likeness.errors import LikenessError
from likeness.retrieval.engines import Exact
from likeness.retrieval.index import Index

HOMES = [f"h{number}" for number in range(6)]
NAMES = [f"{kind}/{home}-{number}" for kind in ("bath", "kitchen") for home in HOMES for number in range(4)]


def seen(folder: Path) -> dict[int, str]:
    """What a new process finds: path by id. Every byte is as it was written."""
    index = Index.open(folder)
    assert list(index.verify()) == []
    found = index.newest()
    return {int(number): found.path(row) for row, number in enumerate(found.ids)}


def by_the_book(query: np.ndarray, codes: dict[int, np.ndarray], k: int) -> list[int]:
    """Ids by cosine in float64, ties by id."""

    def cosine(number: int) -> float:
        code = codes[number].astype(np.float64)
        return round(float(code @ query / np.linalg.norm(code) / np.linalg.norm(query)), 9)

    return sorted(codes, key=lambda number: (-cosine(number), number))[:k]


class Changes(RuleBasedStateMachine):
    """A dict beside an index."""

    operations = 0

    def __init__(self) -> None:
        super().__init__()
        self.place = TemporaryDirectory()
        self.index = made(Path(self.place.name))
        self.there: dict[int, str] = {}
        self.next_id = 0

    def teardown(self) -> None:
        self.place.cleanup()

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True), skip=st.booleans())
    def add(self, names: list[str], skip: bool) -> None:
        new = [name for name in names if name not in self.there.values()]
        if len(new) < len(names) and not skip:
            with pytest.raises(LikenessError, match="INDEX-ID"):
                self.index.add([entries(names)], MODEL)
            return
        added = self.index.add([entries(names)], MODEL, skip_present=skip)
        assert added.ids[added.new].tolist() == list(range(self.next_id, self.next_id + len(new)))
        self.there |= dict(zip(added.ids[added.new].tolist(), new, strict=True))
        self.next_id += len(new)

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.there)), min_size=1, max_size=4, unique=True))
        self.index.remove(ids=ids)
        for number in ids:
            del self.there[number]

    @rule(home=st.sampled_from(HOMES))
    def remove_home(self, home: str) -> None:
        gone = [number for number, name in self.there.items() if f"/{home}-" in name]
        if gone:
            self.index.remove(homes=[home])
        else:
            with pytest.raises(LikenessError, match="INDEX-ID"):
                self.index.remove(homes=[home])
        for number in gone:
            del self.there[number]

    @rule(seed=st.integers(0, 2**16), k=st.integers(1, 8))
    def query(self, seed: int, k: int) -> None:
        query = np.random.default_rng(seed).normal(size=WIDTH)
        codes = {number: entries([name]).codes[0] for number, name in self.there.items()}
        found = Index.open(self.index.folder).newest()
        near = (
            Exact(found.codes, torch.from_numpy(found.ids)).search(torch.from_numpy(query)[None], k) if codes else None
        )
        assert ([] if near is None else found.ids[near.indices[0].numpy()].tolist()) == by_the_book(query, codes, k)

    @invariant()
    def the_same_is_there(self) -> None:
        type(self).operations += 1
        found = self.index.newest()
        assert {int(n): found.path(row) for row, n in enumerate(found.ids)} == {
            number: f"{name}.jpg" for number, name in self.there.items()
        }


@pytest.mark.fault("F48c")
def test_random_changes_are_those_of_a_dict(count, figure):
    Changes.operations = 0
    run_state_machine_as_test(
        Changes,
        settings=settings(
            max_examples=count(10, 60, 400),
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    least = count(200, 2000, 10_000)
    done = Changes.operations
    figure("G17", "random operations on an index, all as in a dict", f">= {least}", done, met=done >= least)


CHANGES = {
    "add": lambda index: index.add([entries(["a/h8-1", "a/h8-2"]), entries(["a/h9-1"])], MODEL),
    "add that merges": lambda index: index.add([entries([f"c/h{n}-7" for n in range(12)])], MODEL),
    "remove": lambda index: index.remove(ids=[1]),
    "remove that writes anew": lambda index: index.remove(ids=[0, 1, 2, 3, 4]),
    "calibrate": lambda index: index.calibrate({"value": 0.5}),
}


@pytest.mark.fault("F48c")
@pytest.mark.parametrize("change", CHANGES)
def test_a_process_that_dies_at_any_step_leaves_the_old_state_or_the_new(tmp_path, change, figure):
    index = made(tmp_path / "before")
    index.add([entries([f"a/h{n}-0" for n in range(8)])], MODEL)
    index.add([entries(["b/h1-0"])], MODEL)
    old = seen(index.folder)

    def folder(step: int) -> Path:
        return tmp_path / f"{step}" / "index"

    def work(step: int) -> None:
        CHANGES[change](Index.open(folder(step)))

    def fresh(step: int) -> Path:
        shutil.copytree(index.folder, folder(step))
        return folder(step)

    CHANGES[change](Index.open(fresh(0)))
    new, states, wrong = seen(folder(0)), [], 0
    for step in killed_at_each_step(work, fresh):
        state = seen(folder(step))
        states.append(state)
        wrong += state not in (old, new)
        again = Index.open(folder(step))
        again.add([entries(["z/h7-7"])], MODEL)  # a later writer clears away what is left over
        assert not list(folder(step).glob(".tmp-*"))
    assert len(states) > 8
    figure(
        "G17", f"index, {change}: killed at each of {len(states)} steps, neither the old state nor the new", 0, wrong
    )


@pytest.mark.fault("F48c")
def test_no_flipped_byte_is_taken_for_what_was_written(tmp_path, count, figure):
    index = made(tmp_path)
    index.add([entries(["a/h1-1", "b/h2-2", "c"])], MODEL)
    index.remove(ids=[1])
    files = [path for path in sorted(index.folder.iterdir()) if path.suffix in (".json", ".safetensors")]
    current = [path for path in files if path.name != "generation-00000002.json"]
    tried = unseen = 0
    for path in current:
        data = path.read_bytes()
        for place in range(0, len(data), count(7, 1, 1)):
            changed = bytearray(data)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            tried += 1
            with suppress(LikenessError):
                unseen += not list(Index.open(index.folder).verify())
        path.write_bytes(data)
    assert seen(index.folder)
    figure("G11", f"bit rot at {tried} bytes of an index: taken for whole", 0, unseen)
