"""How well homes find homes, for a person: one table a halving, and which rule wins."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from likeness.reports import words
from likeness.reports.scoreboard import differences, interval_cell, number
from likeness.reports.tables import table, titled

RULES = {
    "mean": "mean",
    "best_pair": "best pair",
    "by_kind": "by kind",
    "assignment": "assignment",
    "centred_mean": "centred mean",
}
HALVINGS = {"random": "random halves", "kinds": "kinds held out"}
_COMPARED = ("head", "frozen")


def homes_board(metrics: Mapping[str, Any]) -> Group:
    """Every halving's table: methods and rules with their hits, then the differences that decide.

    Args:
        metrics: The content of a ``homes.json``.
    """
    parts = [part for name, summary in metrics["halvings"].items() for part in _of_halving(name, summary)]
    title = f"{metrics['backbone']} → {metrics['head']}, {metrics['split']}"
    return Group(Text(title, "bold"), *parts, Text(_left_out(metrics), "dim"))


def _of_halving(name: str, summary: Mapping[str, Any]) -> Iterator[Group | Text]:
    measures = list(summary["chance"])
    board = table(["", "rule"], [measure.replace("mrr", "MRR") for measure in measures])
    methods = [method for method in words.METHODS if method in summary]
    best = [max(found[m]["value"] for method in methods for found in summary[method].values()) for m in measures]
    for method in methods:
        for rule, found in summary[method].items():
            cells = [interval_cell(found[m], number(found[m]) == top) for m, top in zip(measures, best, strict=True)]
            board.add_row(words.METHODS[method], RULES[rule], *cells)
    board.add_row("chance", "", *(interval_cell(summary["chance"][m]) for m in measures), style="dim")
    yield Text()
    yield titled(HALVINGS[name], f", {_counts(summary)}, percent with 95 % intervals", board)
    if summary["incomparable"]:
        rules = ", ".join(RULES[rule] for rule in summary["incomparable"])
        yield Text(f"{rules}: cannot compare a half with its other half, which has no kind of room in common", "yellow")
    yield Text()
    yield titled("MRR", ", query by query, p for all pairs of rules (Holm)", _winners(summary))
    yield Text()
    yield titled("MRR", ", query by query, p for all rules (Holm)", _gains(summary))


def _counts(summary: Mapping[str, Any]) -> str:
    fewest, most = summary["candidates"]
    among = str(most) if fewest == most else f"{fewest}–{most}"
    return f"{summary['homes']} homes ask among {among}, {words.count(summary['queries'])} queries"


def _winners(summary: Mapping[str, Any]) -> Table:
    winners = ((words.METHODS[method], summary["winner"][method]) for method in _COMPARED)
    return differences(
        (f"{method}: {RULES[winner['rule']]} − {RULES[rule]}", {**found, "p": found["p_holm"]})
        for method, winner in winners
        for rule, found in winner["over"].items()
    )


def _gains(summary: Mapping[str, Any]) -> Table:
    return differences(
        (f"{RULES[rule]}: head − frozen", {**found, "p": found["p_holm"]})
        for rule, found in summary["paired"]["head-frozen"].items()
    )


def _left_out(metrics: Mapping[str, Any]) -> str:
    told = f"{words.count(metrics['pictures'])} pictures of {words.count(metrics['homes'])} homes"
    copies, homeless = metrics["copies"], metrics["homeless"]
    if copies["found"]:
        told += f" · {copies['found']} with the same bytes as another {'kept' if copies['kept'] else 'left out'}"
    return told + (f" · {homeless} of unknown home left out" if homeless else "")
