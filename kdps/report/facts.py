# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How large a test is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdps.data.protocol import SearchProtocol


def set_facts(protocol: SearchProtocol, records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Size of a test set, as label and number."""
    return {
        "test images": len(protocol.images),
        "annotated persons": sum(len(record["annotations"]) for record in records),
        "queries": len(protocol.queries),
        "identities searched for": len({query.person_id for query in protocol.queries}),
    }


def images_per_query(protocol: SearchProtocol) -> int:
    """Images that a query is searched in, as often as they are listed; the median over queries."""
    sizes = [
        len(protocol.images) - len(gallery.excluded)
        if gallery.images is None
        else len(gallery.images)
        for gallery in protocol.galleries
    ]
    return int(np.median(sizes))
