# A stock Detectron2 pipeline that reports person search: python stock_pipeline.py KEY VALUE ...
import sys

from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from torch.nn.functional import normalize

import kdps.data.datasets.builtin  # noqa: F401  (registers the data sets)
from kdps.evaluation import PersonSearchEvaluator


@META_ARCH_REGISTRY.register()
class EmbeddingRCNN(GeneralizedRCNN):
    def inference(self, inputs, detected_instances=None, do_postprocess=True):
        images = self.preprocess_image(inputs)
        features = self.backbone(images.tensor)
        proposals, _ = self.proposal_generator(images, features)
        found, _ = self.roi_heads(images, features, proposals)
        maps = [features[name] for name in self.roi_heads.in_features]
        regions = self.roi_heads._shared_roi_transform(maps, [x.pred_boxes for x in found])
        rows = normalize(regions.mean(dim=(2, 3))).split([len(x) for x in found])
        for x, emb in zip(found, rows, strict=True):
            x.pred_embeddings = emb  # all that the evaluator needs
        return self._postprocess(found, inputs, images.image_sizes)


class Trainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg, name):
        out = cfg.OUTPUT_DIR
        return DatasetEvaluators([COCOEvaluator(name, output_dir=out), PersonSearchEvaluator(name)])


if __name__ == "__main__":
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", "EmbeddingRCNN", *sys.argv[1:]])
    default_setup(cfg, None)
    Trainer(cfg).train()
