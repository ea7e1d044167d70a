"""Pages of one file: a template with everything inside it, that opens from disk without a network."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

_SHARED = ("basics", "theme", "pictures")  # scripts of every page, before its own


def filled(page: str, target: str, scripts: Sequence[str], content: Mapping[str, Any]) -> bytes:
    """The page with its content, and a policy by which a browser loads nothing and runs this script alone.

    Args:
        page: Names its main part, ``page.html``, and its style, ``page.css``.
        target: The section that a reader without a mouse can skip to, by its id.
        scripts: Names of its own, in their order.
        content: Plain values; the script finds them as ``data``.
    """
    parts = files("likeness.reports") / "page_template"
    shell, body = (parts.joinpath(f"{name}.html").read_text("utf-8") for name in ("shell", page))
    style = "\n".join(parts.joinpath(f"{name}.css").read_text("utf-8") for name in ("shell", page))
    script = "\n".join(parts.joinpath(f"{name}.js").read_text("utf-8") for name in (*_SHARED, *scripts))
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")
    marks = {"@style-digest@": _digest(style), "@script-digest@": _digest(script)}
    marks |= {"@style@": style, "@body@": body, "@script@": script, "@data@": data}
    shell = shell.replace("@target@", target)
    for mark, text in marks.items():
        before, _, after = shell.partition(mark)
        shell = before + text + after
    return shell.encode()


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
