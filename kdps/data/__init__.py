# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Data sets, their registration, and the way from a record to the model's input."""

from kdps.data.catalog import get_protocol, register_person_search
from kdps.data.dataset_mapper import PersonSearchDatasetMapper
from kdps.data.datasets import builtin as _builtin  # noqa: F401  (registers the built-in sets)
from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.data.training import get_training_dicts

__all__ = [
    "Gallery",
    "PersonSearchDatasetMapper",
    "Query",
    "SearchProtocol",
    "get_protocol",
    "get_training_dicts",
    "register_person_search",
]
