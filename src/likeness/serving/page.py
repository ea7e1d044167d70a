"""The page in gradio's components. What gradio would decode itself, keep on disk or tell others is not used."""

import contextlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from likeness.errors import LikenessError
from likeness.finding import Finder
from likeness.serving import results
from likeness.serving.asking import Asked, Choice, Upload, photos_of, picked, respond, with_photos
from likeness.serving.results import Address, Photo, Query

_MOST_SHOWN, _FIRST_SHOWN = 60, 12
_MOST_BOXES = 8  # kinds to tick; more are chosen from a list
_SESSIONS, _SECONDS_KEPT = 16, 3600  # whose photos are kept in memory, and how long after the last question
_SECONDS_ON_DISK = (60, 300)  # how often is looked for uploads that nobody asked with, and how old these are
_LOOKS = ("pictures", "homes")
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")


def taken(payload: ListFiles | FileData | None) -> list[Upload]:
    """The uploads, off the disk."""
    given = list(payload.root) if isinstance(payload, ListFiles) else [payload] if payload else []
    try:
        return [Upload(file.orig_name or Path(file.path).name, Path(file.path).read_bytes()) for file in given]
    except OSError:  # two readers' uploads of the same bytes are one file, and the other was first
        return []
    finally:
        for file in given:
            Path(file.path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                Path(file.path).parent.rmdir()


def _as_bytes(component: Any) -> Any:
    """Gives what was uploaded, not where it lies.

    No subclass: gradio writes a stub beside the file of each. No update of its properties: gradio would make it anew.
    """
    component.preprocess = taken
    return component


class Reader:
    """What a reader does. Each gives what ``page`` calls its outputs."""

    def __init__(self, finders: Sequence[Finder], address: Address) -> None:
        self.finders, self.address = finders, address

    def open(self, look: str, k: float, labels: list[str]) -> tuple:
        return self._shown((), (look, k, labels))

    def ask(self, uploads: list[Upload], asked: Asked, look: str, k: float, labels: list[str]) -> tuple:
        return self._photos(uploads, asked.trail, (), (look, k, labels))

    def add(self, uploads: list[Upload], asked: Asked, look: str, k: float, labels: list[str]) -> tuple:
        """More photos of the same home."""
        earlier = asked.trail[-1].photos if asked.trail else ()  # none where the server was started anew
        return self._photos(uploads, asked.trail[:-1], earlier, (look, k, labels))

    def pick(self, asked: Asked, look: str, k: float, labels: list[str], event: gr.EventData) -> tuple:
        query = picked(asked, int(event.side), int(event.row))
        return self._shown((*asked.trail, query) if query else asked.trail, (look, k, labels), arrived=True)

    def back(self, asked: Asked, look: str, k: float, labels: list[str]) -> tuple:
        return self._shown(asked.trail[:-1], (look, k, labels), arrived=True)

    def again(self, asked: Asked, look: str, k: float, labels: list[str]) -> tuple:
        """The same query, of other controls."""
        return self._shown(asked.trail, (look, k, labels))

    def _photos(
        self, uploads: Sequence[Upload], trail: tuple[Query, ...], earlier: Sequence[Photo], controls: tuple
    ) -> tuple:
        photos, bad = photos_of(uploads)
        if not photos:
            return gr.skip(), gr.skip(), _told(bad), gr.skip(), None, None
        trail, many = with_photos(trail, [*earlier, *photos])
        return *self._shown(trail, controls, bad or many, arrived=True), None, None

    def _shown(
        self, trail: tuple[Query, ...], controls: tuple, fault: LikenessError | None = None, arrived: bool = False
    ) -> tuple:
        look, k, labels = controls
        asked, shown = respond(self.finders, trail, Choice(look == "homes", int(k), labels), self.address, arrived)
        own = bool(trail and trail[-1].photos)
        return asked, shown, _told(fault), gr.update(visible=own)


def _told(fault: LikenessError | None) -> str:
    return results.refusal(fault) if fault else ""


def page(finders: Sequence[Finder], address: Address) -> gr.Blocks:
    """The page over one index, or over two that answer side by side.

    Args:
        address: Where the page finds a thumbnail.
    """
    reader = Reader(finders, address)
    with gr.Blocks(analytics_enabled=False, title="likeness", delete_cache=_SECONDS_ON_DISK) as blocks:
        blocks.state_session_capacity = _SESSIONS
        gr.HTML(
            results.header([each.title for each in finders], finders[0].size, len(finders[0].homes)),
            elem_id="head",
            apply_default_css=False,
        )
        asked = gr.State(Asked(), time_to_live=_SECONDS_KEPT)
        with gr.Row():
            with gr.Column(scale=1, min_width=280, elem_id="controls"):
                files: dict[str, Any] = {"file_count": "multiple", "file_types": ["image"]}
                photos = _as_bytes(gr.File(label="Photos, of one home if several", height=150, **files))
                with gr.Column(visible=False) as again:
                    more = _as_bytes(gr.UploadButton("Add photos of the same home", size="md", **files))
                controls = _controls(finders)
            with gr.Column(scale=4, min_width=320, elem_id="answer"):
                told = gr.HTML(elem_id="told", apply_default_css=False)
                found = gr.HTML(js_on_load=_part("page.js"), elem_id="found", apply_default_css=False)
        _listen(reader, blocks, [photos, more], [asked, *controls], [asked, found, told, again])
    return blocks


def _controls(finders: Sequence[Finder]) -> list[gr.Component]:
    labels = sorted({label for finder in finders for label in finder.labels if label})
    most = max(1, min(_MOST_SHOWN, max(finder.size for finder in finders)))
    look = gr.Radio(_LOOKS, value=_LOOKS[0], label="Find", visible=any(finder.homes for finder in finders))
    k = gr.Slider(1, most, value=min(_FIRST_SHOWN, most), step=1, label="How many")
    told: dict[str, Any] = {"label": "Only these kinds", "value": [], "visible": len(labels) > 1}
    if len(labels) > _MOST_BOXES:
        return [look, k, gr.Dropdown(labels, multiselect=True, **told)]
    return [look, k, gr.CheckboxGroup(labels, **told)]


def _listen(reader: Reader, blocks: gr.Blocks, uploads: Sequence[Any], inputs: list, outputs: list) -> None:
    """All one after another: memory is bounded, and a network uses every core for one query already."""
    told: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "ask", "show_progress": "minimal"}
    blocks.load(reader.open, inputs[1:], outputs, **told)
    for upload, ask in zip(uploads, (reader.ask, reader.add), strict=True):
        upload.upload(ask, [upload, *inputs], [*outputs, *uploads], **told)
    found = outputs[1]
    found.pick(reader.pick, inputs, outputs, **told)
    found.back(reader.back, inputs, outputs, **told)
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
