# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.roi_heads.box_head import (
    PostNormBoxHead,
    RegionBoxHead,
    Res5BoxHead,
    TinyBoxHead,
)
from kdps.modeling.roi_heads.coat_roi_heads import CoatROIHeads
from kdps.modeling.roi_heads.diverse_kd_roi_heads import DiverseKDROIHeads
from kdps.modeling.roi_heads.norm_aware import NormAwareOutputLayers, NormAwarePredictions
from kdps.modeling.roi_heads.norm_aware_roi_heads import NormAwareROIHeads
from kdps.modeling.roi_heads.oim_roi_heads import OIMROIHeads
from kdps.modeling.roi_heads.person_search_heads import PersonSearchROIHeads
from kdps.modeling.roi_heads.pixel_norm_aware import (
    PixelNormAwareOutputLayers,
    PixelNormAwareROIHeads,
)
from kdps.modeling.roi_heads.seq_roi_heads import SeqROIHeads
from kdps.modeling.roi_heads.seqnext_roi_heads import LinearOutputLayers, SeqNeXtROIHeads
from kdps.modeling.roi_heads.staged_heads import StagedROIHeads
from kdps.modeling.roi_heads.transformer_head import (
    OccludedTransformerBoxHead,
    TransformerBoxHead,
)

__all__ = [
    "CoatROIHeads",
    "DiverseKDROIHeads",
    "LinearOutputLayers",
    "NormAwareOutputLayers",
    "NormAwarePredictions",
    "NormAwareROIHeads",
    "OIMROIHeads",
    "OccludedTransformerBoxHead",
    "PersonSearchROIHeads",
    "PixelNormAwareOutputLayers",
    "PixelNormAwareROIHeads",
    "PostNormBoxHead",
    "RegionBoxHead",
    "Res5BoxHead",
    "SeqNeXtROIHeads",
    "SeqROIHeads",
    "StagedROIHeads",
    "TinyBoxHead",
    "TransformerBoxHead",
]
