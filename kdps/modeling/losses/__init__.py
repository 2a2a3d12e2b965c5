# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.losses.identity_softmax import IdentitySoftmaxLoss
from kdps.modeling.losses.oim import OIMLoss, build_oim_loss, oim_loss
from kdps.modeling.losses.triplet import batch_hard_triplet_loss, table_triplet_loss

__all__ = [
    "IdentitySoftmaxLoss",
    "OIMLoss",
    "batch_hard_triplet_loss",
    "build_oim_loss",
    "oim_loss",
    "table_triplet_loss",
]
