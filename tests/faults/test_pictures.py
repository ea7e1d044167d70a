"""Pictures that are hard to read, through the whole way from the folder to the store."""

import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.pictures import bit_rot, corpus
from features.mean_colour import MeanColour, extractor_of

from likeness.errors import LikenessError
from likeness.features.extraction import extract
from likeness.images.folder import ImageFolder

MEMORY = 1 << 30  # beyond what the process has; the bombs would take 7 to 10^10 GB
SECONDS = 60


def written(folder: Path) -> dict[str, object]:
    """The corpus as a folder of two classes; by path, what must come of each file."""
    comes: dict[str, object] = {}
    for place, hard in enumerate(corpus()):
        name = f"{'ab'[place % 2]}/{hard.name}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(hard.data)
        comes[name] = hard.comes
    assert len(comes) == len(corpus())
    return comes


def confined(work) -> int:
    """Exit code of a child that does ``work`` in bounded memory and time; 99 where it starts a process or connects."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        signal.alarm(SECONDS)
        forbidden = (
            "subprocess.",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.fork",
            "socket.connect",
            "socket.bind",
        )
        sys.addaudithook(lambda event, _: os._exit(99) if event.startswith(forbidden) else None)
        work()
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:::PIL")  # pytest has put its own filters in the place of the decoder's
@pytest.mark.fault("F01", "F02", "F04", "F05", "F06", "F07", "F08", "F09")
def test_every_hard_picture_is_named_or_right(tmp_path, figure):
    comes = written(tmp_path / "photos")
    table = ImageFolder(str(tmp_path / "photos")).table()
    assert {table.path(i).relative_to(tmp_path / "photos").as_posix() for i in range(len(table))} == comes.keys()
    bad = {name: code for name, code in comes.items() if isinstance(code, str)}

    def work():
        network = MeanColour(tmp_path / "log")
        try:
            extract(extractor_of(network), table, tmp_path / "store")
        except LikenessError as error:
            (tmp_path / "told").write_text(str(error))
        kept = extract(extractor_of(network), table, tmp_path / "store", on_bad_image="quarantine")
        names = [kept.table.path(i).relative_to(tmp_path / "photos").as_posix() for i in range(len(kept.table))]
        (tmp_path / "names").write_text("\n".join(names))
        (tmp_path / "bad").write_text("\n".join(f"{bad.path}\t{bad.code}" for bad in kept.bad))
        np.save(tmp_path / "rows.npy", np.asarray(kept.rows))

    ended = confined(work)
    assert ended == 0
    told = (tmp_path / "told").read_text()
    rows = dict(zip((tmp_path / "names").read_text().split("\n"), 255 * np.load(tmp_path / "rows.npy"), strict=True))
    named = dict(line.split("\t") for line in (tmp_path / "bad").read_text().split("\n"))
    wrong = [n for n, mean in comes.items() if n not in bad and (n not in rows or abs(rows[n] - mean).max() > 2)]
    kinds = len({hard.kind for hard in corpus()})
    figure("G7", "exit code of the process that reads them, memory and time bounded", 0, ended)
    figure("G7", "hard pictures", ">= 120", len(comes), len(comes) >= 120)
    figure("G7", "of kinds", ">= 39", kinds, kinds >= 39)
    figure("G7", "bad ones not named, or with another code", 0, sum(named.get(n) != code for n, code in bad.items()))
    figure("G7", "good ones with no feature or another mean colour", 0, len(wrong))
    assert named.keys() | rows.keys() == comes.keys()
    assert f"[IMG-BAD] {len(bad)} of {len(comes)} pictures" in told
    assert told.endswith("exit 65")


@pytest.mark.fault("F03")
def test_rot_that_still_decodes_is_another_picture_and_the_features_of_the_whole_one_stay(tmp_path):
    for kind in "ab":
        (tmp_path / "photos" / kind).mkdir(parents=True)
    pairs = {tmp_path / "photos" / "ab"[seed % 2] / f"{seed}.jpg": bit_rot(seed) for seed in range(20)}
    for path, (whole, _) in pairs.items():
        path.write_bytes(whole)
    network = MeanColour(tmp_path / "log")
    table = ImageFolder(str(tmp_path / "photos")).table()
    before = extract(extractor_of(network), table, tmp_path / "store")
    for path, (_, rotten) in pairs.items():
        path.write_bytes(rotten)
    after = extract(extractor_of(network), table, tmp_path / "store", on_bad_image="quarantine")
    assert after.computed + len(after.bad) == 20, "none takes the feature of what it was"
    assert after.computed >= 10, "most decode"
    for path, (whole, _) in pairs.items():
        path.write_bytes(whole)
    again = extract(extractor_of(network), table, tmp_path / "store")
    assert (again.computed, again.reused) == (0, 20)
    np.testing.assert_array_equal(again.rows, before.rows)
