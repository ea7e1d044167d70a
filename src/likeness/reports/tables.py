"""How every table in the terminal looks."""

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

_NARROWEST_NAME = 10  # characters: "projection" stays whole


def table(named: Sequence[str], figures: Sequence[str]) -> Table:
    """What a row is may fold; its figures may not."""
    empty = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for name in named:
        empty.add_column(Text(name), overflow="fold", min_width=max(len(name), _NARROWEST_NAME))
    for name in figures:
        empty.add_column(Text(name), no_wrap=True)
    return empty


def titled(title: str, unit: str, content: Table) -> Group:
    """A title that is not bound to the table's width."""
    return Group(Text.assemble((title, "bold"), (unit, "dim")), content)


def brief(options: Sequence[str]) -> list[str]:
    """The last part of each dotted name where that is enough to tell them apart."""
    last = [name.rpartition(".")[2] for name in options]
    return [short if last.count(short) == 1 else name for name, short in zip(options, last, strict=True)]
