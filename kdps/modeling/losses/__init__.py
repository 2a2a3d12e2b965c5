# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.losses.oim import OIMLoss, oim_loss

__all__ = ["OIMLoss", "oim_loss"]
