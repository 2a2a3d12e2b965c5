# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Procedural person-search sets: articulated people in drawn places."""

from kdps.data.synth.config import SynthConfig
from kdps.data.synth.generation import SynthSummary, generate

__all__ = ["SynthConfig", "SynthSummary", "generate"]
