"""The figures of the tests of faults: each is recorded with its target, and all are printed as one table at the end."""

from collections.abc import Callable, Iterator

import pytest

_SIZES = ("quick", "full", "long")
_KEPT_AS = "figure"
_COLUMNS = ("figure", "what", "target", "measured", "")


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
