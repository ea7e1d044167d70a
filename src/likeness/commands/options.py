"""What the subcommands share: options ``name=value``, their refusal, and a line said."""

import argparse
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from likeness.errors import LikenessError

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Option:
    """An option ``name=value``.

    Args:
        read: Its value from its text; a ValueError says what is wrong with it.
        shown: What stands for the value in ``--help``.
        needed: It has no default and must be given.
    """

    name: str
    read: Callable[[str], Any]
    shown: str
    told: str
    default: Any = None
    needed: bool = False


def several(text: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
    """``5,20`` and ``[5, 20]`` alike; no value may come twice."""
    values = [read(value.strip()) for value in text.strip("[]").split(",")]
    if twice := [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise ValueError(f"{', '.join(twice)} is given more than once")
    return tuple(values)


def one_of(text: str, choices: Sequence[str]) -> str:
    """A word of these; else the closest of them is suggested."""
    if text not in choices:
        raise ValueError(f"{text!r} is not one of {', '.join(choices)}{_suggestion(text, choices)}")
    return text


def number(kind: type, text: str) -> Any:
    """An int or a float, as ``kind`` says."""
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is no {'whole ' if kind is int else ''}number") from None


def at_least(least: int, text: str) -> int:
    """A whole number from ``least`` up."""
    if (value := number(int, text)) < least:
        raise ValueError(f"{value} is less than {least}")
    return value


def switch(text: str) -> bool:
    """``true`` or ``false``."""
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def add_with_options(
    commands: Any,
    name: str,
    do: Callable[[argparse.Namespace], None],
    brief: str,
    told: str,
    options: Sequence[Option],
    usage: str,
    places: str = "",
) -> argparse.ArgumentParser:
    """A subcommand whose help lists the options ``name=value`` that it takes, after ``places`` where it needs some."""
    parser = commands.add_parser(
        name,
        help=brief,
        description="\n".join([told, "", *_help(options)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"likeness {name} {usage}",
    )
    if places:
        parser.add_argument("words", nargs="+", metavar=places, help="what is looked at; and NAME=VALUE as above")
    else:
        parser.add_argument("words", nargs="*", metavar="NAME=VALUE", help="as above")
    parser.set_defaults(do=do, command=f"likeness {name}")
    return parser


def _help(options: Sequence[Option]) -> Iterator[str]:
    width = max(len(f"{option.name}={option.shown}") for option in options)
    yield from (f"  {f'{option.name}={option.shown}':<{width}}  {option.told}" for option in options)


ON_BAD_IMAGE = Option(
    "on_bad_image",
    partial(one_of, choices=("raise", "quarantine")),
    "raise",
    "or quarantine: go on without pictures that cannot be used",
    "raise",
)
DEBUG = Option("debug", switch, "false", "true shows where an error comes from", False)
WEIGHTS = Option("weights", str, "FILE", "where the backbone's weights are now, if not where training found them")


def options_of(command: str, options: Sequence[Option], words: Sequence[str]) -> SimpleNamespace:
    """The values that ``words``, each ``name=value``, give; defaults for the others.

    Raises:
        LikenessError: CONFIG with all faults at once.
    """
    values: dict[str, Any] = {}
    faults = []
    for word in words:
        try:
            name, value = _read(options, word)
            if name in values:
                faults.append(f"{name}: given more than once")
            values[name] = value
        except ValueError as error:
            faults.append(str(error))
    named = {word.partition("=")[0] for word in words}
    needed = [option for option in options if option.needed and option.name not in named]
    faults += [f"{option.name}: missing, give it with {option.name}={option.shown}" for option in needed]
    refuse(command, faults)
    return SimpleNamespace(**{option.name: option.default for option in options} | values)


def places_and_options(
    command: str, options: Sequence[Option], words: Sequence[str]
) -> tuple[list[Path], SimpleNamespace]:
    """Files and folders among ``words``, and the values that the others give. A file may be called ``a=b.jpg``."""
    named = [word for word in words if "=" in word and not Path(word).exists()]
    return [Path(word) for word in words if word not in named], options_of(command, options, named)


def _read(options: Sequence[Option], word: str) -> tuple[str, Any]:
    name, _, text = word.partition("=")
    known = {option.name: option for option in options}
    if name not in known:
        takes = f" (it takes {', '.join(known)})"
        raise ValueError(f"{name}: unknown{_suggestion(name, known) or takes}")
    if not text:
        raise ValueError(f"{name}: has no value, give it with {name}={known[name].shown}")
    try:
        return name, known[name].read(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _suggestion(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def refuse(command: str, faults: Sequence[str]) -> None:
    """Raises CONFIG with these faults, if there are any."""
    if faults:
        raise LikenessError(
            "CONFIG",
            f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in the options.",
            where="\n".join(faults),
            kept="Nothing was opened or computed yet.",
            fix=f"Correct these options; likeness {command} --help shows all.",
        )


def say(*lines: object) -> None:
    """Lines of plain text, as they are."""
    from likeness.console import terminal

    for line in lines:
        terminal().print(str(line), soft_wrap=True, markup=False, highlight=False)
