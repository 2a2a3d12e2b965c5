# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Config keys of kdps, on top of Detectron2's."""

from __future__ import annotations

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg as get_detectron2_cfg


def add_kdps_config(cfg: CN) -> None:
    """Add the nodes of kdps to a Detectron2 config, in place."""
    # Train from random weights on purpose. With False, an empty or missing MODEL.WEIGHTS stops the
    # run: nothing starts from random weights silently.
    cfg.MODEL.FROM_SCRATCH = False

    # "shortest_edge" is Detectron2's uint8 resize; "shortest_edge_floor" resizes float pixels
    # bilinearly to floored sides, as torchvision's detectors (hence SeqNet, NAE, COAT) do;
    # "shortest_edge_opencv" is OpenCV's resize of float pixels (OIM-Net),
    # "shortest_edge_opencv_uint8" that of uint8 pixels to rounded sides (AlignPS).
    cfg.INPUT.RESIZE = "shortest_edge"
    # Bounds of the longer side, one for each of INPUT.MIN_SIZE_TRAIN, where the two are drawn
    # together (AlignPS). Empty: INPUT.MAX_SIZE_TRAIN for all. Detectron2's own resize has none.
    cfg.INPUT.MAX_SIZES_TRAIN = ()

    # People of whom a crop (INPUT.CROP) leaves less than this share of their box are left out of
    # training: nobody is recognised by an arm.
    cfg.INPUT.MIN_VISIBLE = 0.0

    # In training, pass on the image as it was read beside the network input: teachers on crops cut
    # people out of it.
    cfg.INPUT.KEEP_ORIGINAL = False

    # Crops of people, of a re-ID network on crops and of the windows of spatial-invariant
    # augmentation. Values are ours, after what is usual in re-ID.
    crops = cfg.INPUT.PERSON_CROPS = CN()
    # Height and width in the network.
    crops.SIZE = (256, 128)
    # In training, cut a window beside the box, as if the crop were padded with so many pixels of
    # the scene on each side and cut at random; but in the image it travels at most ALPHA pixels.
    crops.SHIFT = True
    crops.PADDING = 10.0
    crops.ALPHA = 24.0
    # Share of training crops of which a part is erased.
    crops.ERASING = 0.5
    # Crops of each identity that follow each other with DATALOADER.SAMPLER_TRAIN "IdentitySampler".
    cfg.DATALOADER.INSTANCES_PER_IDENTITY = 4

    # "SGD", "Adam" or "AdamW". The latter two take no notice of SOLVER.MOMENTUM.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Of training with SOLVER.AMP.ENABLED: "float16", whose loss is scaled, or "bfloat16".
    cfg.SOLVER.AMP.PRECISION = "float16"

    _add_model(cfg)

    # Images per process in a test batch. Padding changes features near the border, so results with
    # batches of images of different sizes differ slightly from those of single images.
    cfg.TEST.IMS_PER_BATCH = 1
    # Of convolutions and matrix products at test time: "float32", "float16" or "bfloat16", which is
    # the faster one of CPUs that know it.
    cfg.TEST.PRECISION = "float32"
    # What model_best.pth is the best of (the first test set's).
    cfg.TEST.BEST_METRIC = "person_search/mAP"
    # Also compute COCO's detection metrics.
    cfg.TEST.COCO_METRICS = False

    _add_distillation(cfg)

    cfg.LOG = CN()
    # Iterations between two records in the console, metrics.json and TensorBoard.
    cfg.LOG.PERIOD = 20
    # Longest silence of the console while training, in seconds.
    cfg.LOG.SECONDS = 15.0

    cfg.TEST.PERSON_SEARCH = CN()
    # Gallery sizes to report for sets that have several (CUHK-SYSU: 50 to 4000). Empty: the
    # set's default.
    cfg.TEST.PERSON_SEARCH.GALLERY_SIZES = ()
    # Detections below this score take no part in the search (0.5 is SeqNet's, NAE's and COAT's).
    cfg.TEST.PERSON_SEARCH.SCORE_THRESH = 0.5
    # Weight a detection's similarity by its score (NAE's and SeqNet's confidence weighting).
    cfg.TEST.PERSON_SEARCH.WEIGHTED = False
    # "compat" counts as SeqNet and COAT do, "copies" as OIM, NAE and AlignPS, "strict" each image
    # and truth once (docs/evaluation.md).
    cfg.TEST.PERSON_SEARCH.PROTOCOL = "compat"
    # "cross" searches other cameras than the query's only, "multi_view" all of them, while the
    # person counts in the others only.
    cfg.TEST.PERSON_SEARCH.CAMERAS = "all"
    # Context bipartite graph matching (SeqNet): detections whose images are matched, and persons of
    # the query's image. SeqNet takes 10 and 3 on CUHK-SYSU, 30 and 4 on PRW.
    cfg.TEST.PERSON_SEARCH.CBGM = False
    cfg.TEST.PERSON_SEARCH.CBGM_K1 = 10
    cfg.TEST.PERSON_SEARCH.CBGM_K2 = 3
    # k-reciprocal re-ranking.
    cfg.TEST.PERSON_SEARCH.RERANK = False
    # Mix so many first hits into each query and search again; 0 does not.
    cfg.TEST.PERSON_SEARCH.QUERY_EXPANSION = 0
    # Detections below this score do not count in detection recall and AP (0.01 is what SeqNet and
    # NAE report with).
    cfg.TEST.PERSON_SEARCH.DETECTION_SCORE_THRESH = 0.01
    # Where boxes come from: "" is the model's own detections; "annotated" the annotated boxes, as
    # if a detector had found just these; otherwise a detections file (.npz) of any detector, whose
    # boxes the model embeds: a two-step system.
    cfg.TEST.PERSON_SEARCH.BOXES = ""
    # Move each of BOXES by this part of its width and height, in a random direction that is the
    # same for every model: what embeddings lose by imprecise boxes. Up to 0.2 a box still counts
    # as that of its person.
    cfg.TEST.PERSON_SEARCH.BOX_SHIFT = 0.0
    # Also embed the annotated boxes, which gives the upper bound with perfect detection.
    cfg.TEST.PERSON_SEARCH.GT_BOXES = False


def _add_model(cfg: CN) -> None:
    # "none" freezes nothing. "stem_affine": the first convolution and the affine
    # parameters of its norm have no gradient, running statistics still move (SeqNet, NAE, COAT).
    cfg.MODEL.BACKBONE.FREEZE = "none"

    # Height and width of a pooled region, for regions that are taller than wide; empty: a square
    # of ROI_BOX_HEAD.POOLER_RESOLUTION.
    cfg.MODEL.ROI_BOX_HEAD.POOLER_SIZE = ()
    # A region's features are the "max" over it (NAE, SeqNet, COAT) or the "average" (OIM-Net).
    # ROI_BOX_HEAD.NORM is the norm of the stages on regions; empty: RESNETS.NORM.
    cfg.MODEL.ROI_BOX_HEAD.REGION_POOL = "max"

    # Of the last stage of a ResNet on regions, or on crops (1 in re-ID networks on crops).
    cfg.MODEL.ROI_BOX_HEAD.RES5_STRIDE = 2

    # The network of timm whose stages build_timm_classifier makes, a ConvNeXt or a Swin; what part
    # of its residual branches training drops, at the last block (rising linearly from the first).
    cfg.MODEL.TIMM = CN()
    cfg.MODEL.TIMM.NAME = "convnext_base"
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0

    # Blocks of res4 in the trunk of build_post_norm_resnet; the others are PostNormBoxHead's (3 of
    # 6 is OIM-Net's choice).
    cfg.MODEL.POST_NORM_RESNET = CN()
    cfg.MODEL.POST_NORM_RESNET.RES4_TRUNK_BLOCKS = 3

    # The ResNet of basic blocks that build_tiny_resnet makes: stem of stride 4, stages res2 to res4
    # (output channels, blocks and stride of each), and the stage of TinyBoxHead. Sizes are ours.
    tiny = cfg.MODEL.TINY_RESNET = CN()
    tiny.STEM_CHANNELS = 16
    tiny.CHANNELS = (24, 48, 96)
    tiny.BLOCKS = (1, 1, 1)
    tiny.STRIDES = (1, 2, 2)
    tiny.HEAD_CHANNELS = 128
    tiny.HEAD_BLOCKS = 1
    tiny.HEAD_STRIDE = 2

    ps = cfg.MODEL.PERSON_SEARCH = CN()
    # "given_box" embeds the query box itself; "best_iou" takes the detection that overlaps it most.
    ps.QUERY_MODE = "given_box"
    # Padded image sides are multiples of this (0: the backbone's own size divisibility).
    ps.SIZE_DIVISIBILITY = 0

    reid = cfg.MODEL.REID_HEAD = CN()
    # From region features to embeddings: "NormAwareEmbedding" (NAE, SeqNet, COAT),
    # "PixelNormAwareEmbedding" (NAE+), "FusedEmbedding" (SeqNeXt) or "LinearEmbedding" (OIM-Net).
    reid.NAME = "NormAwareEmbedding"
    reid.EMBEDDING_DIM = 256
    # Identities in the lookup table and length of the circular queue; -1 takes them from the
    # training set. 0 is a legal queue length.
    reid.NUM_PIDS = -1
    reid.QUEUE_SIZE = -1
    reid.OIM_SCALE = 30.0
    reid.OIM_MOMENTUM = 0.5
    # Of the classification of identities of CropReID and DiverseKDROIHeads.
    reid.LABEL_SMOOTHING = 0.1
    # Leave slots of table and queue that hold nothing yet out of the softmax. False lets them take
    # part with a similarity of zero, as the public implementations of OIM do.
    reid.OIM_MASK_EMPTY = True
    # With OIM_MASK_EMPTY, the similarity of a person to the slot of its own identity while nothing
    # is in it (SeqNeXt: 1). With 0 its first appearances are pushed away from everyone else.
    reid.OIM_OWN_EMPTY = 0.0
    # Keep rows of the lookup table at unit length, as OIM's paper, NAE, SeqNet and COAT do. The
    # PyTorch OIM-Net, and AlignPS on CUHK-SYSU, do not.
    reid.OIM_NORMALISE = True
    # Scale of the similarities to the queue where it is another (AlignPS on PRW: 15, and 10 for the
    # queue); -1 takes OIM_SCALE.
    reid.OIM_QUEUE_SCALE = -1.0
    # Only so many numbers of an embedding are written to the queue; 0 writes all. The PyTorch
    # OIM-Net and AlignPS write 64 of 256, without giving a reason.
    reid.OIM_QUEUE_DIMS = 0
    # Rows count (1 - p) to this power (focal OIM: 2 in AlignPS).
    reid.OIM_FOCAL_GAMMA = 0.0
    # The loss is the mean over "labelled" people, or the sum of theirs by the number of all
    # "people" (AlignPS).
    reid.OIM_AVERAGE = "labelled"
    # Weight and margin of a triplet loss: with the rows of the lookup table, beside OIM (AlignPS on
    # CUHK-SYSU: 1 and 0.3), or within the batch (CropReID, DiverseKDROIHeads); 0 has none.
    reid.TRIPLET_LOSS_WEIGHT = 0.0
    reid.TRIPLET_MARGIN = 0.3
    # Weights of the OIM loss and of the norm-aware head's other losses.
    reid.LOSS_WEIGHT = 1.0
    reid.CLS_LOSS_WEIGHT = 1.0
    reid.BBOX_REG_LOSS_WEIGHT = 1.0
    # Weight of a classification of identities beside OIM (COAT: 0.1 on CUHK-SYSU, 0.5 on PRW); 0
    # has none.
    reid.ID_LOSS_WEIGHT = 0.0
    # IoU threshold of the last suppression of SeqNet and COAT, whose refined boxes overlap more
    # than proposals (ROI_HEADS.NMS_THRESH_TEST is that of the stages before).
    reid.NMS_THRESH_TEST = 0.5

    _add_coat(cfg)
    _add_alignps(cfg)


def _add_distillation(cfg: CN) -> None:
    # Each name in TEACHERS and LOSSES has a node DISTILLATION.<NAME>. Its TYPE is the registered
    # class, by default the name itself; its other keys are the arguments of the class. A loss also
    # has the name of its TEACHER (the only one need not be named) and its WEIGHT.
    node = cfg.DISTILLATION = CN(new_allowed=True)
    node.ENABLED = False
    node.TEACHERS = ()
    node.LOSSES = ()
    # The weights of all losses rise from 0 over so many iterations, and end at STOP_ITER (-1: with
    # the training). In between they are "constant" or fall to 0, "linear" or "cosine".
    node.WARMUP_ITERS = 0
    node.STOP_ITER = -1
    node.SCHEDULE = "constant"
    # With losses that look at windows (PLACES): a window is one of so many fixed ones of a person,
    # which a teacher with a cache meets again, at the same places beside everybody; 0 draws any.
    # INPUT.PERSON_CROPS is their range.
    node.WINDOWS = 0


def _add_coat(cfg: CN) -> None:
    # The cascade of CoatROIHeads has Detectron2's keys, MODEL.ROI_BOX_CASCADE_HEAD. All values here
    # are COAT's.
    coat = cfg.MODEL.COAT = CN()
    # Box head of the re-ID stages (ROI_BOX_HEAD.NAME is that of stage 1).
    coat.REID_BOX_HEAD = "OccludedTransformerBoxHead"
    # Channels of the transformers of a stage together, and of what the stage makes of a region.
    coat.DIM = 512
    coat.OUTPUT_CHANNELS = 2048
    # Side of the patch that a token describes: one transformer for each, all of the same size.
    coat.TOKEN_KERNELS = (1, 3)
    coat.NUM_LAYERS = 1
    coat.NUM_HEADS = 8
    # Hidden channels of the feed-forward networks over those of a token.
    coat.FFN_RATIO = 4
    # Cells across the stripes that regions exchange in training.
    coat.STRIPE_WIDTH = 1


def _add_alignps(cfg: CN) -> None:
    # Aligned feature aggregation, build_aligned_backbone, takes MODEL.FPN.IN_FEATURES and
    # OUT_CHANNELS of the maps of this backbone.
    cfg.MODEL.AFA = CN()
    cfg.MODEL.AFA.BOTTOM_UP = "build_person_search_resnet"
    # Maps that it makes in training, from the stride of the first input map on.
    cfg.MODEL.AFA.NUM_LEVELS = 5
    # Of its laterals and outputs, and of the last layers of the head below: deformable convolutions
    # as published, or plain ones, which are three times as fast on a CPU.
    cfg.MODEL.AFA.DEFORMABLE = True

    # The detector of AlignPS. All values here are AlignPS's.
    node = cfg.MODEL.ALIGNPS = CN()
    # The first map finds people; the others only add background in training.
    node.IN_FEATURES = ("p3", "p4", "p5", "p6", "p7")
    # Convolutions of each branch of the head (of which the last is deformable) and their norm.
    node.NUM_CONVS = 4
    node.NORM = "GN"
    node.DEFORMABLE = True
    # Probability of a person that the head starts with.
    node.PRIOR_PROB = 0.01
    # Cells within so many strides of the centre of a person, on both axes, find it.
    node.CENTRE_RADIUS = 1.5
    node.FOCAL_LOSS_ALPHA = 0.25
    node.FOCAL_LOSS_GAMMA = 2.0
    node.BBOX_REG_LOSS_WEIGHT = 1.0
    # The mean over the map that is subtracted from it counts cells of padding, as in the public
    # code. Without, an image has the same mean in every batch.
    node.MEAN_OVER_PADDING = False
    # Of the probability of a person, before it is multiplied with the centreness.
    node.SCORE_THRESH_TEST = 0.05
    # Cells of an image that go into the suppression, and its IoU threshold.
    node.TOPK_CANDIDATES_TEST = 1000
    node.NMS_THRESH_TEST = 0.5

    # What MODEL.REID_HEAD is for the regions of ROIAlignPS; where a key is missing, that of the
    # cells holds. All values here are ROI-AlignPS's.
    region = node.REGION_REID = CN()
    region.OIM_SCALE = 30.0
    region.OIM_NORMALISE = True
    region.OIM_QUEUE_SCALE = -1.0
    region.OIM_QUEUE_DIMS = 0
    region.OIM_FOCAL_GAMMA = 0.0
    region.OIM_AVERAGE = "labelled"
    region.LOSS_WEIGHT = 1.0
    region.CLS_LOSS_WEIGHT = 1.0
    region.BBOX_REG_LOSS_WEIGHT = 10.0


def get_cfg() -> CN:
    """Detectron2's default config with the nodes of kdps and of its bundled projects."""
    cfg = get_detectron2_cfg()
    add_kdps_config(cfg)
    return cfg
