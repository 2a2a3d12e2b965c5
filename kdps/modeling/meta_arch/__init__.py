# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from kdps.modeling.meta_arch.alignps import AlignPS
from kdps.modeling.meta_arch.crop_reid import CropReID
from kdps.modeling.meta_arch.person_search_rcnn import PersonSearchRCNN
from kdps.modeling.meta_arch.roi_alignps import ROIAlignPS

__all__ = ["AlignPS", "CropReID", "PersonSearchRCNN", "ROIAlignPS"]
