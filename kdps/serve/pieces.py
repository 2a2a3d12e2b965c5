# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The parts of the page that Gradio has no component for, as HTML.

All pictures and lists are in the HTML itself, so that the server hands out no files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from kdps.footage.frames import read_scene
from kdps.report.rendering import data_uri, jpeg_uri
from kdps.search.gallery import Hit
from kdps.search.results import hit_picture, hit_values
from kdps.serve.desk import Scene
from kdps.serve.uploads import FORMATS, MEDIA_TYPES

_QUALITY = 85
# Pixels of the longer side; more are not seen on the page.
_MAX_SIDE = 1600

_ENVIRONMENT = Environment(
    loader=PackageLoader("kdps.serve"),
    # Names of cameras and files are texts, whatever is in them.
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def asset(name: str) -> str:
    """The text of a script or style sheet."""
    return (files("kdps.serve") / "templates" / name).read_text(encoding="utf-8")


def upload_html(max_bytes: int) -> str:
    """The field that takes an image of at most so many bytes."""
    return _render("upload", max_bytes=max_bytes, formats=FORMATS, media_types=MEDIA_TYPES)


def scene_html(scene: Scene) -> str:
    """A scene with its persons to choose from."""
    places = [_place(person.box, scene.image) for person in scene.persons]
    # The smaller of two that overlap lies above, or it could not be clicked.
    order = np.argsort([-place["width"] * place["height"] for place in places]).tolist()
    persons = [
        {**place, "number": number, "score": person.score, "order": order.index(number) + 1}
        for number, (place, person) in enumerate(zip(places, scene.persons, strict=True))
    ]
    return _render("scene", title=scene.title, picture=_picture(scene.image), persons=persons)


def hits_html(hits: Sequence[Hit], num_persons: int) -> str:
    """Ranked hits, with links to their list as JSON and CSV."""
    rows = [hit_values(rank, hit) for rank, hit in enumerate(hits, 1)]
    return _render(
        "hits",
        hits=[{**_shown(hit), "picture": jpeg_uri(hit_picture(hit), _QUALITY)} for hit in hits],
        num_persons=num_persons,
        json=data_uri("application/json", json.dumps(rows, indent=2).encode()),
        csv=data_uri("text/csv", _table(rows).encode()),
    )


def frame_html(rank: int, hit: Hit) -> str:
    """The whole frame of a hit.

    Raises:
        KdpsError: it cannot be read.
    """
    image = read_scene(hit.source, hit.frame)
    return _render(
        "frame",
        rank=rank,
        hit=_shown(hit),
        name=Path(hit.source).name,
        picture=_picture(image),
        ratio=round(image.shape[1] / image.shape[0], 3),
        place=_place(hit.box, image),
    )


def _render(template: str, **values: Any) -> str:
    return _ENVIRONMENT.get_template(f"{template}.html.j2").render(values)


def _picture(image: np.ndarray) -> str:
    scale = _MAX_SIDE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return jpeg_uri(image[:, :, ::-1], _QUALITY)


def _place(box: Sequence[float], image: np.ndarray) -> dict[str, float]:
    """Where a box (XYXY) is, in hundredths of an image's width and height."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.clip(box, 0, [width, height, width, height]).tolist()
    places = {
        "left": x0 / width,
        "top": y0 / height,
        "width": (x1 - x0) / width,
        "height": (y1 - y0) / height,
    }
    return {name: round(100 * share, 3) for name, share in places.items()}


def _shown(hit: Hit) -> dict[str, Any]:
    x0, y0, x1, y1 = hit.box
    stay = f"{hit.sightings} sightings, {hit.first} to {hit.last}" if hit.sightings > 1 else ""
    return {
        "similarity": hit.similarity,
        "score": hit.score,
        "camera": hit.camera,
        "when": str(hit.moment).replace("T", " "),
        "stay": stay.replace("T", " "),
        "box": f"{x0:.0f} {y0:.0f} {x1 - x0:.0f} {y1 - y0:.0f}",
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    flat = [
        {**row, **dict(zip(("x0", "y0", "x1", "y1"), row["bbox"], strict=True))} for row in rows
    ]
    names = [name for name in flat[0] if name != "bbox"] if flat else []
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
