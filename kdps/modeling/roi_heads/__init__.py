# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.roi_heads.box_head import Res5BoxHead, TinyBoxHead
from kdps.modeling.roi_heads.norm_aware import NormAwareOutputLayers, NormAwarePredictions
from kdps.modeling.roi_heads.seq_roi_heads import SeqROIHeads

__all__ = [
    "NormAwareOutputLayers",
    "NormAwarePredictions",
    "Res5BoxHead",
    "SeqROIHeads",
    "TinyBoxHead",
]
