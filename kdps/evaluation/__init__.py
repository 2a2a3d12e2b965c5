# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Person-search and detection accuracy by the protocols of the field."""

from kdps.evaluation.annotated import annotated_as_detections
from kdps.evaluation.detection import DetectionResult, score_detections
from kdps.evaluation.detections_file import load_detections, save_detections
from kdps.evaluation.person_search_evaluation import PersonSearchEvaluator
from kdps.evaluation.search import SearchResult, score_search

__all__ = [
    "DetectionResult",
    "PersonSearchEvaluator",
    "SearchResult",
    "annotated_as_detections",
    "load_detections",
    "save_detections",
    "score_detections",
    "score_search",
]
