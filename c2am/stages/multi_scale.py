"""Multi-scale class maps of a trained classifier."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from c2am import compiling, ops, precision
from c2am.data.loader import InferenceBatch
from c2am.methods import Method
from c2am.models import Classifier, build_classifier, fold_batch_norms, load_weights
from c2am.stages.class_maps import STRIDE, strided_size, sum_resized
from c2am.stages.context import StageContext

_HIGH_RES_MULTIPLE = 16


def trained_classifier(
    context: StageContext, weights: Path, method: Method | None = None
) -> Classifier:
    """The classifier with weights of a file and what `method` attaches to it, to infer with."""
    net = untrained_classifier(context)
    if method is not None and method.trains:
        method.attach(net)
    load_weights(net, weights)
    net.eval().requires_grad_(False)
    fold_batch_norms(net.backbone)
    net.to(context.device)
    return compiling.compile_for_inference(net, context.device, context.config.classifier.compile)


def untrained_classifier(context: StageContext) -> Classifier:
    """The network alone, to load weights into: no pretrained ones are read for it."""
    config = replace(context.config.classifier, weights="none")
    return build_classifier(config, len(context.dataset.classes))


def strided_maps(
    context: StageContext, method: Method, net: Classifier, batch: InferenceBatch
) -> Tensor:
    """`(K, ceil(H/4), ceil(W/4))` float32: a batch's class maps, summed over its scales.

    The K image-class pairs follow the row-major order of `batch.present`.
    """
    maps = (_one_scale(context, method, net, batch, views) for views in batch.views)
    return sum_resized(maps, strided_size(batch.size))


def both_maps(
    context: StageContext, method: Method, net: Classifier, batch: InferenceBatch
) -> ops.MultiScaleCam:
    """A batch's class maps over its scales, each over its maximum: strided, and of the image size.

    Those of the image size are computed at it rounded up to a multiple of 16 and cropped.
    """
    maps = [_one_scale(context, method, net, batch, views) for views in batch.views]
    return ops.multi_scale_cam(maps, batch.size, stride=STRIDE, multiple=_HIGH_RES_MULTIPLE)


def _one_scale(
    context: StageContext, method: Method, net: Classifier, batch: InferenceBatch, views: Tensor
) -> Tensor:
    with precision.autocast(context.device, context.config.classifier.precision):
        return method.class_maps(net, views, batch.present, batch.ids).detach().float()
