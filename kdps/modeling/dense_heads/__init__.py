# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.dense_heads.aligned_head import AlignedHead
from kdps.modeling.dense_heads.cell_losses import cell_losses
from kdps.modeling.dense_heads.cell_outputs import CellOutputs
from kdps.modeling.dense_heads.cells import CellGrid, match_cells

__all__ = ["AlignedHead", "CellGrid", "CellOutputs", "cell_losses", "match_cells"]
