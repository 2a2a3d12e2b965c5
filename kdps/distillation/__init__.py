# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Knowledge distillation for person search."""

from kdps.distillation.build import build_distiller, build_teachers
from kdps.distillation.crop_teacher import CropTeacher
from kdps.distillation.distiller import Distiller
from kdps.distillation.ema_teacher import EMATeacher
from kdps.distillation.losses import DISTILL_LOSS_REGISTRY, DistillLoss, NetworkShape
from kdps.distillation.scene_teacher import SceneTeacher
from kdps.distillation.teacher import TEACHER_REGISTRY, Teacher, TeacherOutputs

__all__ = [
    "DISTILL_LOSS_REGISTRY",
    "TEACHER_REGISTRY",
    "CropTeacher",
    "DistillLoss",
    "Distiller",
    "EMATeacher",
    "NetworkShape",
    "SceneTeacher",
    "Teacher",
    "TeacherOutputs",
    "build_distiller",
    "build_teachers",
]
