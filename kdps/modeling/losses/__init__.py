# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.losses.identity_softmax import IdentitySoftmaxLoss
from kdps.modeling.losses.oim import OIMLoss, build_oim_loss, oim_loss

__all__ = ["IdentitySoftmaxLoss", "OIMLoss", "build_oim_loss", "oim_loss"]
