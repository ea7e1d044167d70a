"""What is nobody's to keep: secrets of the environment, found in a config and taken out of a message."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from likeness.errors import LikenessError, listed

_OF_A_SECRET = re.compile(r"(?:^|_)(?:(?:API)?KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?)(?:_|$)")
_SHORTEST_SECRET = 8
_PASSWORD_IN_URL = re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+@")


def _secrets() -> Iterator[tuple[str, str]]:
    """Names and values of the environment that are nobody's to keep; a path to a secret is none."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _OF_A_SECRET.search(name.upper()) and not os.path.exists(value):
            yield name, value


def refuse_secrets(plain: Any) -> None:
    """Raises CONFIG-SECRET where a value of a config is a secret: it would be kept in the run's folder, and sent on."""
    secrets = list(_secrets())
    found = []
    for path, text in _texts_by_path(plain):
        found += [f"{path}: the value of {name}" for name, value in secrets if value in text]
        found += [f"{path}: a URL with a password"] if _PASSWORD_IN_URL.search(text) else []
    if found:
        raise LikenessError(
            "CONFIG-SECRET",
            "an option holds a secret, and options are kept in the run's folder.",
            where=listed(dict.fromkeys(found)),
            kept="Nothing was opened, computed or kept yet.",
            fix="Leave it to the environment, where wandb, MLflow and others look themselves (WANDB_API_KEY, ...).",
        )


def redacted(text: str) -> str:
    """``text`` with the names of secrets in the place of their values."""
    for name, value in _secrets():
        text = text.replace(value, f"<{name}>")
    return _PASSWORD_IN_URL.sub(r"\1<password>@", text)


def _texts_by_path(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts_by_path(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts_by_path(item, f"{path}[{index}]")
