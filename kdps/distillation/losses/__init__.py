# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY, DistillLoss, NetworkShape
from kdps.distillation.losses.detection import BoxResponse, DetectionResponse
from kdps.distillation.losses.feature_imitation import FeatureImitation
from kdps.distillation.losses.focal_global import FocalGlobalFeature
from kdps.distillation.losses.identity_response import IdentityResponse
from kdps.distillation.losses.pearson_feature import PearsonFeature
from kdps.distillation.losses.relation import GramRelation, SoftmaxRelation
from kdps.distillation.losses.relational import AngleRelation, DistanceRelation
from kdps.distillation.losses.teacher_table import TeacherTable
from kdps.distillation.losses.triplet_relation import TripletRelation

__all__ = [
    "DISTILL_LOSS_REGISTRY",
    "AngleRelation",
    "BoxResponse",
    "DetectionResponse",
    "DistanceRelation",
    "DistillLoss",
    "FeatureImitation",
    "FocalGlobalFeature",
    "GramRelation",
    "IdentityResponse",
    "NetworkShape",
    "PearsonFeature",
    "SoftmaxRelation",
    "TeacherTable",
    "TripletRelation",
]
