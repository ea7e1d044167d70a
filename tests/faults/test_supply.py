"""What is installed is new enough, and no call in the source could run a file."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from test_architecture import FILES, code_runners, relative

# Below these, a library's own reader of files or configs runs what they say, or its locks are taken twice.
FLOORS = {
    "torch": "2.10",
    "pytorch-lightning": "2.6.6",
    "hydra-core": "1.3.8",
    "filelock": "3.31",
    "safetensors": "0.8",
    "pillow": "12",
}
NEEDED = [Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]


@pytest.mark.fault("F45", "F46")
def test_what_is_installed_is_what_is_asked_for(figure):
    wrong = [str(each) for each in NEEDED if not each.specifier.contains(version(each.name))]
    figure("G19", f"of {len(NEEDED)} packages installed that are not as asked for", 0, wrong or 0)


@pytest.mark.parametrize("name", FLOORS)
def test_nothing_older_is_asked_for_than_is_safe(name):
    (asked,) = [each for each in NEEDED if each.name == name]
    assert any(part.operator == ">=" for part in asked.specifier)
    assert not asked.specifier.contains(f"{FLOORS[name]}.dev0", prereleases=True)
    assert not asked.specifier.contains("0.1")


@pytest.mark.fault("F45", "F46")
def test_no_call_could_run_a_file(figure):
    found = [told for path in FILES for told in code_runners(relative(path), path.read_text())]
    figure("G19", f"calls in {len(FILES)} files that could run a file, a text or a shell", 0, found or 0)


def test_an_audit_without_a_service_says_so_and_ends_well(tmp_path):
    """In a copy whose python is ours, where neither the package nor its service can be reached."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    for file in (".ci/audit", "requirements.lock"):
        (tmp_path / file).write_text((ROOT / file).read_text())
    nobody = "http://127.0.0.1:9"
    done = subprocess.run(
        ["bash", str(tmp_path / ".ci" / "audit")],
        env={"PIP_INDEX_URL": nobody, "HTTPS_PROXY": nobody, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    assert done.stdout.startswith("no audit: ")
