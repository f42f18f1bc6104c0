"""Stage `classifier`: multi-label classification from image-level labels, the baseline.

Multi-label soft margin loss, i.e. binary cross-entropy of the logits averaged over images and
classes (paper, Section 3.1).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from c2am import distributed, precision
from c2am.config import ClassifierConfig
from c2am.data.loader import TrainBatch
from c2am.models import Classifier, build_classifier
from c2am.stages.context import StageContext
from c2am.stages.lists import own_batches
from c2am.stages.loaders import inference_batches, train_loader
from c2am.trainer import train


class ClassifierTask:
    """Trains a `Classifier` on image-level labels."""

    def __init__(self, net: Classifier, config: ClassifierConfig) -> None:
        self.net = net
        self.config = config

    def parameter_groups(self) -> list[dict]:
        """Backbone and head with their learning rates."""
        return self.net.parameter_groups(self.config)

    def loss(self, batch: TrainBatch, progress: float) -> dict[str, Tensor]:
        """Multi-label soft margin loss."""
        logits = self.net(batch.images).logits.float()
        loss = F.multilabel_soft_margin_loss(logits, batch.labels)
        return {"classification": image_mean(loss, batch)}

    def after_step(self, batch: TrainBatch, progress: float) -> None:
        """Nothing to do."""


def image_mean(loss: Tensor, batch: TrainBatch) -> Tensor:
    """A mean over this rank's images as its part of the mean over the images of all ranks."""
    count = len(batch.ids)
    return distributed.global_mean(loss * count, count)


def run(context: StageContext) -> dict:
    """Train the baseline; metrics: the losses and `val_average_precision`."""
    config = context.config.classifier
    net = build_classifier(config, len(context.dataset.classes)).to(context.device)
    loader = train_loader(context, config, net.backbone.normalization)
    metrics: dict = train(
        ClassifierTask(net, config),
        loader,
        config,
        folder=context.folder,
        events=context.events,
        device=context.device,
        profile=context.profile,
    )
    return metrics | {"val_average_precision": average_precision(context, net)}


def average_precision(context: StageContext, net: Classifier) -> dict:
    """Average precision of the logits per class over the val list, at scale 1.

    Returns:
        `{"mean": v, "class": {name: v}}`, fractions; None for a class that no image holds, which
        is left out of the mean.
    """
    dataset = context.dataset
    ids = dataset.ids(context.config.data.val_list)
    labels = torch.from_numpy(np.stack([dataset.labels(image_id) for image_id in ids]))
    # torchmetrics takes their sigmoid; in float32 that of large logits would be equal.
    logits = _logits(context, net, ids).double()
    columns = zip(dataset.classes, logits.T, labels.T.long(), strict=True)
    values = {
        name: float(binary_average_precision(score, present)) if present.any() else None
        for name, score, present in columns
    }
    seen = [value for value in values.values() if value is not None]
    return {"mean": sum(seen) / len(seen) if seen else None, "class": values}


@torch.inference_mode()
def _logits(context: StageContext, net: Classifier, ids: list[str]) -> Tensor:
    """(N, Z) float32 on the CPU, gathered from all ranks."""
    row = {image_id: index for index, image_id in enumerate(ids)}
    config, batch_size = context.config, context.config.cam.batch_size
    batches = inference_batches(
        context,
        own_batches(context.dataset, ids, batch_size),
        net.backbone.normalization,
        f"{context.name}: val",
        batch_size=batch_size,
    )
    net.eval()
    rows, outputs = [], []  # read when all is queued, so that nobody waits for a GPU in between
    for batch in batches:
        with precision.autocast(context.device, config.classifier.precision):
            outputs.append(net(batch.views[0][:, 0]).logits.float())
        rows += [row[image_id] for image_id in batch.ids]
    logits = torch.zeros(len(ids), len(context.dataset.classes), device=context.device)
    if rows:
        logits[rows] = torch.cat(outputs)
    return distributed.sum_on_host(logits)
