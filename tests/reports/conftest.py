"""A real browser for the tests of pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def opened(browser, file) -> Iterator:
    """Opens ``file``, or another page, in a window; in the end nothing was asked for and the console had no word."""
    heard, contexts = [], []

    def open_page(width: int = 1280, scheme: str = "light", page_file: Path = file):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(3_000)
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or heard.append(request.url))
        page.goto(page_file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []
