"""What the benchmarks of extraction look at and say, without a second that is measured."""

import sys

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench
import extraction
import gpu_extraction

sys.path.remove(str(ROOT / "benchmarks"))  # there is a retrieval.py, which would hide the tests' folder of that name


def test_drawn_photos_differ_in_their_bytes_and_the_65th_shows_what_the_first_does(tmp_path):
    files = extraction.photos_in(None, 65, tmp_path)
    assert len({file.read_bytes() for file in files}) == 65
    first, second, last = (np.asarray(Image.open(files[number])) for number in (0, 1, 64))
    assert first.shape == (480, 640, 3)
    assert (first == last).all()
    assert (first != second).any()


def test_photos_are_taken_from_all_over_a_folder_and_a_folder_without_any_is_refused(tmp_path):
    for name in "abcdef":
        (tmp_path / f"{name}.jpg").touch()
    assert [file.stem for file in extraction.photos_in(tmp_path, 3, tmp_path)] == ["a", "c", "f"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"there is no \.jpg in .*empty"):
        extraction.photos_in(tmp_path / "empty", 3, tmp_path)


def test_the_lesser_of_two_bounds_is_named_with_the_share_that_is_reached():
    rates = {"forward alone": {"pictures a second": 4000.0}, "decoding": {"pictures a second": 1000.0}}
    assert gpu_extraction.bound({"pictures a second": 900.0}, rates) == {"bounded by": "decoding", "reached": 0.9}


def test_a_part_that_wants_a_run_has_it_made_before():
    assert bench.chosen(["votes", "start"]) == ["start", "drawn", "votes"]
    assert bench.chosen(["start"]) == ["start"]
    assert bench.part("votes", quick=False, run=ROOT / "drawn").words == ("votes.py", str(ROOT / "drawn"))
