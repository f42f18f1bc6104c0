"""Stage `segmenter`: DeepLabV2 trained on the pseudo masks.

The loss is summed over the outputs of all scales and their fusion by maximum. At each output the
masks are brought to its resolution by nearest neighbour; void (255) is left out.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from c2am import compiling, distributed
from c2am.config import PipelineConfig, SegmenterConfig
from c2am.data import Dataset
from c2am.data.loader import TrainBatch
from c2am.models import DeepLab, build_segmenter, load_weights, read_state_dict
from c2am.models.weights import load_state
from c2am.palette import VOID
from c2am.stages.context import StageContext
from c2am.stages.labels import resize_labels
from c2am.stages.loaders import train_loader
from c2am.trainer import train


class SegmenterTask:
    """Trains a `DeepLab` on masks."""

    def __init__(self, net: DeepLab, config: SegmenterConfig) -> None:
        self.net = net
        self.config = config

    def parameter_groups(self) -> list[dict]:
        """Backbone, ASPP weights and ASPP biases."""
        return self.net.parameter_groups(self.config)

    def loss(self, batch: TrainBatch, progress: float) -> dict[str, Tensor]:
        """One term per scale, and one of the fused output where there are several scales."""
        assert batch.masks is not None
        scales = self.config.scales
        logits, fused = self.net.multi_scale(batch.images, scales)
        outputs = {f"scale_{s:g}": each for s, each in zip(scales, logits, strict=True)}
        if len(scales) > 1:
            outputs["fused"] = fused
        return {
            name: segmentation_loss(output.float(), batch.masks, self.config.loss)
            for name, output in outputs.items()
        }

    def after_step(self, batch: TrainBatch, progress: float) -> None:
        """Nothing to do."""


def segmentation_loss(logits: Tensor, masks: Tensor, kind: str) -> Tensor:
    """Cross-entropy of `logits (B, N, h, w)` and `masks (B, H, W)` uint8, over all ranks.

    `balanced`: the means over background and over foreground pixels, halved; a kind that is
    absent counts 0. `cross_entropy`: the mean over all pixels that are not void.
    """
    label = resize_labels(masks, logits.shape[-2:])
    loss = F.cross_entropy(logits, label, ignore_index=VOID, reduction="none")
    if kind == "cross_entropy":
        return _mean_over(loss, label != VOID)
    background = label == 0
    foreground = ~background & (label != VOID)
    return (_mean_over(loss, background) + _mean_over(loss, foreground)) / 2


def _mean_over(loss: Tensor, pixels: Tensor) -> Tensor:
    return distributed.global_mean(torch.where(pixels, loss, 0).sum(), pixels.sum())


def run(context: StageContext) -> dict:
    """Train; metrics are those of the training."""
    config = context.config.segmenter
    net = starting_segmenter(context).to(context.device)
    masks = context.own("pseudo_masks")
    return train(
        SegmenterTask(net, config),
        train_loader(
            context,
            config,
            net.backbone.normalization,
            masks=lambda image_id: masks / f"{image_id}.png",
        ),
        config,
        folder=context.folder,
        events=context.events,
        device=context.device,
        profile=context.profile,
    )


def check(config: PipelineConfig, dataset: Dataset) -> None:
    """Raise `ValueError` if the weights that the training starts from cannot be had."""
    own, other = config.segmenter.backbone, config.classifier.backbone
    if not config.segmenter.starts_from_classifier:
        build_segmenter(config.segmenter, len(dataset.classes))
    elif own != other:
        raise ValueError(
            "segmenter.weights = 'classifier' needs one backbone for both, but "
            f"segmenter.backbone = {own!r} and classifier.backbone = {other!r}"
        )


def starting_segmenter(context: StageContext) -> DeepLab:
    """The network that training starts from."""
    config, classes = context.config.segmenter, len(context.dataset.classes)
    if not config.starts_from_classifier:
        return build_segmenter(config, classes)
    net = build_segmenter(replace(config, weights="none"), classes)
    path = context.shared("classifier") / "weights.safetensors"
    prefix = "backbone."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in read_state_dict(path).items()
        if name.startswith(prefix)
    }
    load_state(net.backbone, state, str(path))
    return net


def trained_segmenter(context: StageContext) -> DeepLab:
    """The network of this method's stage `segmenter`, frozen, in evaluation mode."""
    config = replace(context.config.segmenter, weights="none")
    net = build_segmenter(config, len(context.dataset.classes))
    load_weights(net, context.own("segmenter") / "weights.safetensors")
    net.to(context.device).eval().requires_grad_(False)
    return compiling.compile_for_inference(net, context.device, context.config.segmenter.compile)
