"""What several rooms' tests need: small folders of generated pictures, the real photos where they are at hand, figures.

A figure of a test of faults is recorded with its target; all are printed as one table at the end.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from helpers import SHARED, draw_striped

_SIZES = ("quick", "full", "long")
_KEPT_AS = "figure"
_COLUMNS = ("figure", "what", "target", "measured", "")
_CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_ARGUMENTS += ("--disable-sync", "--no-first-run")

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # every number below is of the CPU
os.environ["WANDB_MODE"] = "offline"
hypothesis.settings.register_profile("patient", deadline=None)  # what a test takes depends on what else runs
hypothesis.settings.load_profile("patient")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """``root/class/homeNNN.png``: three classes of 20 pictures, 20 homes of three."""
    for period, name in ((4, "fine"), (9, "medium"), (25, "coarse")):
        for home in range(20):
            draw_striped(tmp_path / "photos" / name / f"home{home:03d}.png", period, home)
    return tmp_path / "photos"


def photos_of(name: str) -> Path:
    """A folder of real photos; a test that asks for it is skipped where it is not."""
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"the folder of real photos, ../shared/data/{name}, is not here")
    return folder


@pytest.fixture
def rooms() -> Path:
    """Real photos of six kinds of room, in splits."""
    return photos_of("rooms")


@pytest.fixture
def houses() -> Path:
    """Real photos, KIND/homeNNN.jpg, of four kinds in each of 400 homes."""
    return photos_of("houses")


@pytest.fixture
def squeezenet_weights() -> Path:
    path = SHARED / "weights" / "squeezenet1_1-imagenet.safetensors"
    if not path.is_file():
        pytest.skip("real ImageNet weights, ../shared/weights, are not here")
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "how many kills, cuts and mutations: quick (every test run), full (make faults), long (make faults-long)"
    parser.addoption("--size", choices=_SIZES, default="quick", help=told)


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[int, int, int], int]:
    """``count(quick, full, long)``: how many times, by ``--size``."""

    def chosen(quick: int, full: int, long: int) -> int:
        return (quick, full, long)[_SIZES.index(request.config.getoption("--size", "quick"))]

    return chosen


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """``figure("G7", "malformed pictures that end the process", 0, found)``: kept for the table, then asserted.

    ``met`` says whether the target is met where it is not simply equality.
    """

    def told(name: str, what: str, target: object, measured: object, met: bool | None = None) -> None:
        reached = measured == target if met is None else met
        record_property(_KEPT_AS, [name, what, str(target), str(measured), "met" if reached else "NOT MET"])
        assert reached, f"{name}, {what}: {measured}, target {target}"

    return told


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = sorted(set(_recorded(terminalreporter)), key=lambda row: (int(row[0][1:]), row[1]))
    if rows:
        table = [_COLUMNS, *rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
        terminalreporter.section("figures")
        for row in table:
            terminalreporter.write_line("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)))


def _recorded(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, ...]]:
    reports = [report for each in ("passed", "failed") for report in terminalreporter.stats.get(each, [])]
    for report in reports:
        yield from (tuple(kept) for name, kept in getattr(report, "user_properties", []) if name == _KEPT_AS)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Debian's chromium, where it and playwright are."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the dev extra has it)")
    if not os.access(_CHROMIUM, os.X_OK):
        pytest.skip(f"there is no {_CHROMIUM}: apt-get install chromium fonts-dejavu-core")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(_CHROMIUM), args=list(_ARGUMENTS))
        yield browser
        browser.close()
