# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Writes the annotation of a set in the layout of CUHK-SYSU (Xiao et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdps.data.datasets.cuhk_sysu import GALLERY_SIZES
from kdps.data.synth.annotated import Annotated, Appearance, appearances
from kdps.data.synth.config import STREAM_PROTOCOL, SynthConfig
from kdps.data.synth.matfile import box, cell_column, scalar, struct_array, write_mat
from kdps.data.synth.render import Box
from kdps.data.synth.schedule import Shot
from kdps.errors import KdpsError

HARD = 0.5  # people of whom less is seen are flagged as hard

_PERSON = ("idname", "nAppear", "scene")
_SCENE = ("imname", "idlocate", "ishard")


def check(config: SynthConfig) -> None:
    """Refuse settings that the layout cannot hold.

    Raises:
        KdpsError: more queries than test identities.
    """
    if config.queries is not None and config.queries > config.test_ids:
        raise KdpsError(
            f"synth: queries={config.queries} but test_ids={config.test_ids}; the cuhk-sysu "
            f"layout queries each identity once"
        )


def image_path(config: SynthConfig, shot: Shot) -> Path:
    """Path of an image under the root; training images come first."""
    offset = 1 if shot.split == "train" else 1 + config.train_images
    return Path("Image", "SSM", f"s{offset + shot.index}.jpg")


def gallery_sizes(images: int) -> tuple[int, ...]:
    """The set's own sizes that fit, or one gallery of everything if none does.

    Args:
        images: test images. A gallery leaves out the query's, so it has at least one image less.
    """
    fitting = tuple(size for size in GALLERY_SIZES if size < images)
    return fitting or (images - 1,)


def write_annotation(config: SynthConfig, root: Path, images: Sequence[Annotated]) -> None:
    """Write all ``.mat`` files.

    Each test identity is queried once at most, as in the real set. People of the test split who
    are not queried carry no identity in this layout.

    Args:
        config: settings.
        root: the set's folder.
        images: all images, training images first.

    Raises:
        KdpsError: fewer test identities are seen in two images than queries are asked for, or one
            is in more than half of its gallery.
    """
    annotation = root / "annotation"
    folder = annotation / "test" / "train_test"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (
            image.path.name,
            scalar(len(image.boxes)),
            struct_array(("idlocate", "ishard"), [(box(b.xywh), _hard(b)) for b in image.boxes]),
        )
        for image in images
    ]
    write_mat(annotation / "Images.mat", {"Img": struct_array(("imname", "nAppear", "box"), rows)})
    pool = [image for image in images if image.shot.split == "test"]
    write_mat(annotation / "pool.mat", {"pool": cell_column([image.path.name for image in pool])})
    train, test = appearances(images, "train"), appearances(images, "test")
    people = [_person(number, seen) for number, seen in train.items()]
    cells = cell_column([struct_array(_PERSON, [person]) for person in people])
    write_mat(folder / "Train.mat", {"Train": cells})
    people += [_person(config.train_ids + number, seen) for number, seen in test.items()]
    write_mat(annotation / "Person.mat", {"Person": struct_array(_PERSON, people)})
    searches = _draw_searches(config, pool, test)
    sizes = gallery_sizes(len(pool))
    _require_distractors(config, searches, sizes[0])
    for size in sizes:
        rows = [_search_row(config, search, size) for search in searches]
        key = f"TestG{size}"
        write_mat(folder / f"{key}.mat", {key: struct_array(("Query", "Gallery"), rows)})


@dataclass(frozen=True)
class _Search:
    """A query with all that its galleries draw from, in a random order."""

    number: int
    query: Appearance
    truths: list[Appearance]
    distractors: list[Annotated]


def _draw_searches(
    config: SynthConfig, pool: Sequence[Annotated], test: dict[int, list[Appearance]]
) -> list[_Search]:
    rng = config.rng(STREAM_PROTOCOL)
    searchable = [number for number, seen in test.items() if len(seen) >= 2]
    wanted = len(searchable) if config.queries is None else config.queries
    if not searchable or wanted > len(searchable):
        raise KdpsError(
            f"synth: queries={max(wanted, 1)}, but only {len(searchable)} of test_ids="
            f"{config.test_ids} are seen in two images; raise test_images"
        )
    searches = []
    for number in sorted(rng.choice(searchable, wanted, replace=False).tolist()):
        seen = test[number]
        query = seen.pop(int(rng.integers(len(seen))))
        # An image in which the person is drawn but almost hidden is no distractor either.
        others = [image for image in pool if all(p.number != number for p in image.shot.people)]
        searches.append(_Search(number, query, _shuffled(rng, seen), _shuffled(rng, others)))
    return searches


def _shuffled(rng: np.random.Generator, items: list) -> list:
    return [items[i] for i in rng.permutation(len(items))]


def _require_distractors(config: SynthConfig, searches: Sequence[_Search], size: int) -> None:
    """Refuse galleries in which a guess would find the person."""
    most = max(len(search.truths) for search in searches)
    if 2 * most > size:
        raise KdpsError(
            f"synth: test_images={config.test_images} show one of test_ids={config.test_ids} in "
            f"{most} of the {size} images of a gallery, more than half; raise test_ids"
        )


def _search_row(config: SynthConfig, search: _Search, size: int) -> tuple[np.ndarray, np.ndarray]:
    nothing = np.zeros((1, 0))
    gallery = [_scene(seen) for seen in search.truths]
    distractors = search.distractors[: size - len(gallery)]
    gallery += [(image.path.name, nothing, nothing) for image in distractors]
    name = _name(config.train_ids + search.number)
    query = struct_array((*_SCENE, "idname"), [(*_scene(search.query), name)])
    return query, struct_array(_SCENE, gallery)


def _person(number: int, seen: Sequence[Appearance]) -> tuple[str, np.ndarray, np.ndarray]:
    return _name(number), scalar(len(seen)), struct_array(_SCENE, map(_scene, seen))


def _scene(seen: Appearance) -> tuple[str, np.ndarray, np.ndarray]:
    return seen.image.path.name, box(seen.box.xywh), _hard(seen.box)


def _name(number: int) -> str:
    return f"p{number + 1}"


def _hard(b: Box) -> np.ndarray:
    return scalar(int(b.visible < HARD))
