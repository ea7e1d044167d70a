"""The page in gradio's components, but for uploads: gradio would keep them on disk, and takes a path for a file."""

from collections.abc import Sequence
from importlib import resources
from typing import Any

import gradio as gr

from likeness.errors import LikenessError
from likeness.finding import Finder
from likeness.serving import results
from likeness.serving.asking import Asked, Choice, photos_of, picked, respond, with_photos
from likeness.serving.memory import Upload, Uploads
from likeness.serving.results import Address, Photo, Query

_MOST_SHOWN, _FIRST_SHOWN = 60, 12
_MOST_BOXES = 8  # kinds to tick; more are chosen from a list
_SESSIONS, _SECONDS_KEPT = 16, 3600  # whose photos are kept in memory, and how long after the last question
_LOOKS = ("pictures", "homes")
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")


class Reader:
    """What a reader does. Each gives what ``page`` calls its outputs."""

    def __init__(self, finders: Sequence[Finder], address: Address, uploads: Uploads) -> None:
        self.finders, self.address, self.uploads = finders, address, uploads

    def open(self, look: str, k: float, labels: list[str]) -> tuple:
        return self._shown((), (look, k, labels))

    def ask(self, asked: Asked, look: str, k: float, labels: list[str], event: gr.EventData) -> tuple:
        return self._photos(event, asked.trail, (), (look, k, labels))

    def more(self, asked: Asked, look: str, k: float, labels: list[str], event: gr.EventData) -> tuple:
        """More photos of the same home."""
        earlier = asked.trail[-1].photos if asked.trail else ()  # none where the server was started anew
        return self._photos(event, asked.trail[:-1], earlier, (look, k, labels))

    def pick(self, asked: Asked, look: str, k: float, labels: list[str], event: gr.EventData) -> tuple:
        query = picked(asked, int(event.side), int(event.row))
        return self._shown((*asked.trail, query) if query else asked.trail, (look, k, labels), arrived=True)

    def back(self, asked: Asked, look: str, k: float, labels: list[str]) -> tuple:
        return self._shown(asked.trail[:-1], (look, k, labels), arrived=True)

    def again(self, asked: Asked, look: str, k: float, labels: list[str]) -> tuple:
        """The same query, of other controls."""
        return self._shown(asked.trail, (look, k, labels))

    def _photos(
        self, event: gr.EventData, trail: tuple[Query, ...], earlier: Sequence[Photo], controls: tuple
    ) -> tuple:
        sent = [(str(each["name"]), str(each["token"]), int(each["size"])) for each in event.photos]
        photos, bad = photos_of([Upload(name, self.uploads.take(token), size) for name, token, size in sent])
        if not photos:
            return gr.skip(), gr.skip(), _told(bad)
        trail, many = with_photos(trail, [*earlier, *photos])
        return self._shown(trail, controls, bad or many, arrived=True)

    def _shown(
        self, trail: tuple[Query, ...], controls: tuple, fault: LikenessError | None = None, arrived: bool = False
    ) -> tuple:
        look, k, labels = controls
        asked, shown = respond(self.finders, trail, Choice(look == "homes", int(k), labels), self.address, arrived)
        return asked, shown, _told(fault)


def _told(fault: LikenessError | None) -> str:
    return results.refusal(fault) if fault else ""


def page(finders: Sequence[Finder], address: Address, uploads: Uploads) -> gr.Blocks:
    """The page over one index, or over two that answer side by side.

    Args:
        address: Where the page finds a thumbnail.
        uploads: Where its photos are, by the names that it asks with.
    """
    reader = Reader(finders, address, uploads)
    with gr.Blocks(analytics_enabled=False, title="likeness") as blocks:
        blocks.state_session_capacity = _SESSIONS
        _html(results.header([each.title for each in finders], finders[0].size, len(finders[0].homes)), "head")
        asked = gr.State(Asked(), time_to_live=_SECONDS_KEPT)
        with gr.Row():
            with gr.Column(scale=1, min_width=280, elem_id="controls"):
                drop = _html(results.drop(), "drop", js_on_load=_part("page.js"))
                controls = _controls(finders)
            with gr.Column(scale=4, min_width=320, elem_id="answer"):
                told = _html("", "told")
                found = _html("", "found", js_on_load=_part("page.js"))
        _listen(reader, blocks, drop, [asked, *controls], [asked, found, told])
    return blocks


def _html(value: str, name: str, js_on_load: str | None = None) -> gr.HTML:
    return gr.HTML(value, elem_id=name, js_on_load=js_on_load, apply_default_css=False)


def _controls(finders: Sequence[Finder]) -> list[gr.Component]:
    labels = sorted({label for finder in finders for label in finder.labels if label})
    most = max(2, min(_MOST_SHOWN, max(finder.size for finder in finders)))
    look = gr.Radio(_LOOKS, value=_LOOKS[0], label="Find", visible=any(finder.homes for finder in finders))
    k = gr.Slider(1, most, value=min(_FIRST_SHOWN, most), step=1, label="How many")
    told: dict[str, Any] = {"label": "Only these kinds", "value": [], "visible": len(labels) > 1}
    if len(labels) > _MOST_BOXES:
        return [look, k, gr.Dropdown(labels, multiselect=True, **told)]
    return [look, k, gr.CheckboxGroup(labels, **told)]


def _listen(reader: Reader, blocks: gr.Blocks, drop: gr.HTML, inputs: list, outputs: list) -> None:
    """All one after another: memory is bounded, and a network uses every core for one query already."""
    told: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "ask", "show_progress": "minimal"}
    blocks.load(reader.open, inputs[1:], outputs, **told)
    found = outputs[1]
    for happens, do in (
        (drop.ask, reader.ask),
        (found.more, reader.more),
        (found.pick, reader.pick),
        (found.back, reader.back),
    ):
        happens(do, inputs, outputs, **told)
    for control in inputs[1:]:
        control.change(reader.again, inputs, outputs, trigger_mode="always_last", **told)


def theme() -> gr.Theme:
    """Fonts of the reader's own system alone; faint text has the contrast of WCAG's AA."""
    base = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=("monospace",))
    faint = {"light": "*neutral_600", "dark": "*neutral_300"}
    return base.set(
        body_text_color_subdued=faint["light"],
        body_text_color_subdued_dark=faint["dark"],
        block_label_text_color=faint["light"],
        block_title_text_color="*neutral_700",
    )


def style() -> str:
    return _part("page.css")


def _part(name: str) -> str:
    return (resources.files("likeness.serving") / name).read_text("utf-8")
