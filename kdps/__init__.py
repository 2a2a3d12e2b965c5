# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Person search with knowledge distillation, on Detectron2."""

from kdps.utils.requirements import require_detectron2

__version__ = "0.1.0"

require_detectron2()
