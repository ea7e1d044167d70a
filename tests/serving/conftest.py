"""The page's server in a process of its own, as a reader starts and ends it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import ROOT


@pytest.fixture(scope="session")
def pages(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Addresses of the pages over ``one`` index and over ``two``, and the folder ``tmp`` of the server's files.

    In the end Ctrl-C ends it: no traceback, nothing left behind, exit code 0.
    """
    pytest.importorskip("gradio", reason="gradio is not installed (the demo extra has it)")
    place = tmp_path_factory.mktemp("serving")
    (place / "tmp").mkdir()
    environment = os.environ | {"TMPDIR": str(place / "tmp"), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    script = Path(__file__).with_name("small_page.py")
    with subprocess.Popen(
        [sys.executable, script, place], env=environment, stderr=subprocess.PIPE, text=True, cwd=place
    ) as process:
        first = process.stderr.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+)  \(Ctrl-C ends it\)", first)
        assert found, first + process.stderr.read()
        yield SimpleNamespace(one=found[1], two=(place / "two").read_text(), tmp=place / "tmp", process=process)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert (process.returncode, told) == (0, "ended\n")
    assert [path for path in (place / "tmp").iterdir() if path.name.startswith("likeness-serve-")] == []
