"""Stage `irn_labels`: confident foreground and background from the CAMs by dense CRF.

The arg-max of the CAMs against a high threshold says where foreground is sure, that against a low
one where background is sure; each is refined by a dense CRF over the image's own classes
(Ahn et al. 2019, Section 4.1). With `irn_labels.stream` stage `cam` has made the labels in its
pass, and they are taken from there.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from c2am import distributed, ops
from c2am.config import IrnLabelsConfig
from c2am.data import naming, read_image, read_mask
from c2am.palette import VOID
from c2am.stages.class_maps import ClassMaps, read_class_maps
from c2am.stages.context import StageContext
from c2am.stages.crf import crf_device, crf_plan, infer
from c2am.stages.lists import done, own
from c2am.stages.parallel import map_images
from c2am.workspace import write_mask


def run(context: StageContext) -> dict:
    """Write `<id>.png` for the training list; metrics: the shares of its pixels by kind."""
    ids = context.dataset.ids(context.config.data.train_list)
    made = done(context, ids, lambda image_id: _path(context, image_id).exists())

    def counts(image_id: str) -> Tensor:
        path = _path(context, image_id)
        if image_id in made:
            labels = read_mask(path)
        else:
            labels = image_labels(context, image_id)
            write_mask(path, labels)
        kinds = (labels == 0, (labels > 0) & (labels != VOID), labels == VOID)
        return torch.tensor([np.count_nonzero(kind) for kind in kinds])

    total = torch.zeros(3, dtype=torch.int64)
    for part in map_images(counts, own(context.dataset, ids, made), context.name):
        total += part
    total = distributed.sum_on_host(total.to(context.device))
    shares = (total / total.sum()).tolist()
    return dict(zip(("background", "foreground", "unsure"), shares, strict=True))


def _path(context: StageContext, image_id: str) -> Path:
    return context.folder / f"{image_id}.png"


def image_labels(context: StageContext, image_id: str) -> np.ndarray:
    """(H, W) uint8 labels: those that stage `cam` has made in its pass, or from its maps."""
    folder = context.own("cam")
    streamed = folder / f"{image_id}.png"
    if streamed.exists():
        return read_mask(streamed)
    cams = read_class_maps(folder / f"{image_id}.safetensors", "high_res")
    return labels_from(context, image_id, cams)


def labels_from(context: StageContext, image_id: str, cams: ClassMaps) -> np.ndarray:
    """(H, W) uint8 labels of an image of the dataset from its maps `cams`, on any device.

    Raises:
        DataError: the image cannot be read, or is of another size than the maps.
    """
    path = context.dataset.image_path(image_id)
    image = torch.from_numpy(read_image(path).copy()).to(crf_device(context.device))
    with naming(path):
        return confident_labels(image, cams, context.config.irn_labels).cpu().numpy()


def confident_labels(image: Tensor, cams: ClassMaps, config: IrnLabelsConfig) -> Tensor:
    """Labels of one image.

    Args:
        image: (H, W, 3) uint8; the CRF runs on its device.
        cams: K maps (K, H, W) in 0..1.
        config: thresholds and CRF.

    Returns:
        (H, W) uint8: class index + 1 where the foreground is sure, 0 where both thresholds say
        background, 255 elsewhere.
    """
    plan = crf_plan(image, config.crf)
    maps = cams.maps.to(image.device, torch.float32)
    foreground = refined(plan, maps, config.fg_threshold, config)
    background = refined(plan, maps, config.bg_threshold, config)
    values = F.pad(cams.classes.to(image.device) + 1, (1, 0))
    unsure = torch.where(background > 0, VOID, 0)
    return torch.where(foreground > 0, values[foreground.long()], unsure).to(torch.uint8)


def refined(
    plan: ops.DenseCrfPlan, cams: Tensor, threshold: float, config: IrnLabelsConfig
) -> Tensor:
    """(H, W) uint8 arg-max in 0..K (0 is background) of [threshold, maps] after the CRF."""
    labels = F.pad(cams, (0, 0, 0, 0, 1, 0), value=threshold).argmax(0)
    unary = ops.unary_from_labels(labels, len(cams) + 1, gt_prob=config.gt_prob)
    return infer(plan, unary, config.crf)
