# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The page, in Gradio. Imported only where that is known to be there."""

from __future__ import annotations

import functools
import html
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio

from kdps.errors import KdpsError
from kdps.search.gallery import Hit
from kdps.serve.desk import Scene, SearchDesk, Wanted, hit_of
from kdps.serve.pieces import asset, frame_html, hits_html, scene_html, upload_html

logger = logging.getLogger(__name__)

_TITLE = "Person search"
_HITS, _MAX_HITS = 12, 60
# Entries of a list that a browser shows without delay.
_MAX_LISTED = 2000
# A visit that nothing happens in is forgotten, with its scene.
_SECONDS_KEPT = 3600
# Requests that may wait for the model, and visits whose scenes are kept.
_MAX_WAITING, _MAX_VISITS = 20, 50
_ALL = "all cameras"
_TIMES = "date or 0:01:30"


@dataclass(frozen=True)
class Visit:
    """What a visitor has before them. It stays on the server, and is referred to by numbers.

    Attributes:
        scene: to choose a person from.
        wanted: who was chosen.
        hits: what was found.
    """

    scene: Scene | None = None
    wanted: Wanted | None = None
    hits: tuple[Hit, ...] = ()


def make_page(desk: SearchDesk) -> gradio.Blocks:
    """The page over a desk."""
    actions = _Actions(desk)
    listed = desk.footage_of(None)[:_MAX_LISTED]
    with gradio.Blocks(title=_TITLE, analytics_enabled=False) as page:
        visit = gradio.State(Visit(), time_to_live=_SECONDS_KEPT)
        gradio.Markdown(f"# {_TITLE}\nChoose a scene, then the person to look for.")
        with gradio.Row():
            with gradio.Column(min_width=280):
                with gradio.Tab("From the footage"):
                    camera = gradio.Dropdown([_ALL, *desk.cameras], value=_ALL, label="Camera")
                    footage = gradio.Dropdown(
                        _choices(desk, listed), value=None, label="Image or video"
                    )
                    at = gradio.Textbox("", label="Time in a video", placeholder="0:01:30")
                    show = gradio.Button("Show the scene")
                with gradio.Tab("An image of your own"):
                    upload = _piece(upload_html(desk.max_bytes), "upload")
                scene = _piece("", "scene")
            with gradio.Column(min_width=280):
                with gradio.Group():
                    with gradio.Row():
                        cameras = gradio.Dropdown(
                            desk.cameras, multiselect=True, label="Only on cameras", min_width=120
                        )
                        top_k = gradio.Slider(
                            1, _MAX_HITS, value=_HITS, step=1, label="Hits", min_width=120
                        )
                    with gradio.Row():
                        start = gradio.Textbox("", label="From", placeholder=_TIMES, min_width=120)
                        end = gradio.Textbox("", label="To", placeholder=_TIMES, min_width=120)
                apply = gradio.Button("Apply the filter")
                hint = '<p class="hint">The hits appear here.</p>'
                hits = _piece(hint, "hits")
        frame = _piece("", "frame")

        options: dict[str, Any] = {
            # The model and the index do one thing at a time.
            "concurrency_id": "desk",
            "concurrency_limit": 1,
            "api_visibility": "private",
            "show_progress": "minimal",
        }
        search = [visit, cameras, start, end, top_k]
        camera.change(actions.list_footage, camera, footage, **options)
        show.click(actions.show_footage, [visit, footage, at], [visit, scene], **options)
        upload.upload(actions.show_upload, visit, [visit, scene], **options)
        scene.select(actions.choose, search, [visit, hits], **options)
        for event in (apply.click, start.submit, end.submit):
            event(actions.search, search, [visit, hits], **options)
        hits.select(actions.show_hit, visit, frame, **options)
        frame.clear(None, None, frame, js="() => ''")
    page.queue(max_size=_MAX_WAITING)
    page.state_session_capacity = _MAX_VISITS
    return page


def _told(action: Callable[..., Any]) -> Callable[..., Any]:
    """The action, with what it finds fault with told on the page."""

    @functools.wraps(action)
    def told(*args: Any) -> Any:
        try:
            return action(*args)
        except KdpsError as error:
            logger.warning("%s", error)
            # The page takes the text of an error for HTML.
            text = html.escape(str(error))
            raise gradio.Error(text, title="That did not work", print_exception=False) from error

    return told


class _Actions:
    """What happens on the page. What comes from the browser is checked by the desk."""

    def __init__(self, desk: SearchDesk) -> None:
        self._desk = desk

    @_told
    def list_footage(self, camera: str) -> Any:
        numbers = self._desk.footage_of(None if camera == _ALL else camera)[:_MAX_LISTED]
        return gradio.Dropdown(choices=_choices(self._desk, numbers), value=None)

    @_told
    def show_footage(self, visit: Visit, number: int | None, at: str) -> tuple[Visit, str]:
        return self._shown(self._desk.open_footage(number, at))

    @_told
    def show_upload(self, visit: Visit, event: gradio.EventData) -> tuple[Visit, str]:
        return self._shown(self._desk.open_upload(_said(event, "data")))

    def _shown(self, scene: Scene) -> tuple[Visit, str]:
        return Visit(scene), scene_html(scene)

    @_told
    def choose(
        self,
        visit: Visit,
        cameras: Sequence[str],
        start: str,
        end: str,
        top_k: int,
        event: gradio.EventData,
    ) -> tuple[Visit, str]:
        if visit.scene is None:
            raise KdpsError("choose a scene first; the last one has been forgotten")
        box = _said(event, "box")
        if box is None:
            wanted = self._desk.choose_person(visit.scene, _said(event, "person"))
        else:
            wanted = self._desk.choose_box(visit.scene, box)
        return self.search(Visit(visit.scene, wanted), cameras, start, end, top_k)

    @_told
    def search(
        self, visit: Visit, cameras: Sequence[str], start: str, end: str, top_k: int
    ) -> tuple[Visit, str]:
        if visit.wanted is None:
            raise KdpsError("choose a person first")
        hits = self._desk.find(visit.wanted, cameras, start, end, min(int(top_k), _MAX_HITS))
        return Visit(visit.scene, visit.wanted, tuple(hits)), hits_html(hits, len(self._desk))

    @_told
    def show_hit(self, visit: Visit, event: gradio.EventData) -> str:
        number = _said(event, "hit")
        hit = hit_of(visit.hits, number)
        return frame_html(number + 1, hit)


def _said(event: gradio.EventData, name: str) -> object:
    """What an event tells under a name; None if nothing."""
    return event._data.get(name) if isinstance(event._data, dict) else None


def _choices(desk: SearchDesk, numbers: Sequence[int]) -> list[tuple[str, int]]:
    return [(desk.labels[number], number) for number in numbers]


def _piece(value: str, name: str) -> gradio.HTML:
    """A part of the page with its script."""
    return gradio.HTML(
        value,
        js_on_load=asset(f"{name}.js"),
        apply_default_css=False,
        elem_id=f"kdps-{name}",
        elem_classes="kdps",
    )
