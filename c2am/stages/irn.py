"""Stage `irn`: class boundaries and displacements learnt from confident labels (Ahn et al. 2019).

The labels of `irn_labels` are brought to the network's stride of 4 by nearest neighbour. The loss
is that of IRN: affinity and displacement losses over all pairs of cells closer than the radius.
"""

from dataclasses import replace

import torch
from torch import Tensor

from c2am import compiling, distributed, ops, precision
from c2am.checkpoints import write_weights
from c2am.config import IrnConfig, PipelineConfig
from c2am.data import Dataset
from c2am.data.loader import TrainBatch
from c2am.models import Irn, build_irn, load_weights
from c2am.ops import paths
from c2am.palette import VOID
from c2am.stages.context import StageContext
from c2am.stages.labels import resize_labels
from c2am.stages.lists import own_batches
from c2am.stages.loaders import inference_batches, train_loader
from c2am.trainer import train


class IrnTask:
    """Trains an `Irn` on confident labels."""

    def __init__(self, net: Irn, config: IrnConfig, num_classes: int) -> None:
        self.net = net
        self.config = config
        self.num_classes = num_classes

    def parameter_groups(self) -> list[dict]:
        """Boundary branch and displacement branch."""
        return self.net.parameter_groups(self.config)

    def loss(self, batch: TrainBatch, progress: float) -> dict[str, Tensor]:
        """The five means of IRN, over the pairs of all ranks, each with its weight."""
        assert batch.masks is not None
        edge, displacement = self.net(batch.images)
        label = resize_labels(batch.masks, edge.shape[-2:])
        radius = self.config.radius
        affinity = ops.affinity_loss(
            edge.float().sigmoid(), label, radius=radius, num_classes=self.num_classes
        )
        offset = ops.displacement_loss(displacement.float(), label, radius=radius)
        fg, bg, negative = pair_counts(label, radius)
        return {
            "boundary_fg": _global(affinity.fg_positive, fg) / 4,
            "boundary_bg": _global(affinity.bg_positive, bg) / 4,
            "boundary_negative": _global(affinity.negative, negative) / 2,
            "displacement_fg": _global(offset.fg_positive, fg) / 2,
            "displacement_bg": _global(offset.bg_positive, bg) / 2,
        }

    def after_step(self, batch: TrainBatch, progress: float) -> None:
        """Nothing to do."""


def pair_counts(label: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Number of foreground, background and negative pairs of `label (B, h, w)`, 255 = void.

    Only several ranks need them, to weigh their means; a single one gets ones.
    """
    if distributed.world_size() == 1:
        one = torch.ones((), device=label.device)
        return one, one, one
    # All displacements at once: one by one they are thousands of launches on a GPU, in each step.
    label = label.to(torch.uint8)
    offsets = paths.path_offsets(radius)
    source = paths.shifted(label, 0, 0, radius)
    targets = torch.stack([paths.shifted(label, p.dy, p.dx, radius) for p in offsets])
    same = (targets == source).sum(0)
    known = ((targets != VOID).sum(0) * (source != VOID)).sum()
    bg = (same * (source == 0)).sum()
    fg = (same * ((source > 0) & (source != VOID))).sum()
    return fg, bg, known - fg - bg


def _global(mean: Tensor, count: Tensor) -> Tensor:
    return distributed.global_mean(mean * count, count)


def check(config: PipelineConfig, dataset: Dataset) -> None:
    """Raise `WeightsError` if the weights that the training starts from cannot be had."""
    build_irn(config.irn)


def run(context: StageContext) -> dict:
    """Train, then measure the mean displacement that inference subtracts."""
    config = context.config.irn
    net = build_irn(config).to(context.device)
    labels = context.own("irn_labels")
    loader = train_loader(
        context,
        config,
        net.backbone.normalization,
        masks=lambda image_id: labels / f"{image_id}.png",
    )
    metrics: dict = train(
        IrnTask(net, config, len(context.dataset.classes)),
        loader,
        config,
        folder=context.folder,
        events=context.events,
        device=context.device,
        profile=context.profile,
    )
    # The trained network's memory layout differs from a loaded one's, and with it the last bits.
    net = trained_irn(context)
    net.displacement_mean.copy_(mean_displacement(context, net))
    distributed.barrier()
    if distributed.is_main():
        write_weights(context.folder, net, metrics)
    return metrics | {"displacement_mean": net.displacement_mean.tolist()}


@torch.inference_mode()
def mean_displacement(context: StageContext, net: Irn) -> Tensor:
    """(2,) mean over the training list of each image's mean displacement at scale 1."""
    ids = context.dataset.ids(context.config.data.train_list)
    batch_size = context.config.cam.batch_size
    batches = inference_batches(
        context,
        own_batches(context.dataset, ids, batch_size),
        net.backbone.normalization,
        f"{context.name}: mean displacement",
        batch_size=batch_size,
    )
    net.eval()
    net.displacement_mean.zero_()
    total = torch.zeros(2, device=context.device)
    for batch in batches:
        with precision.autocast(context.device, context.config.irn.precision):
            # Not the compiled network: images of many sizes would be many graphs.
            _, displacement = net.forward(batch.views[0][:, 0])
        total += displacement.float().mean((2, 3)).sum(0)
    return distributed.sum_on_host(total) / len(ids)


def trained_irn(context: StageContext) -> Irn:
    """The network of this method's stage `irn`, frozen, in evaluation mode."""
    net = build_irn(replace(context.config.irn, weights="none"))
    load_weights(net, context.own("irn") / "weights.safetensors")
    net.to(context.device).eval().requires_grad_(False)
    return compiling.compile_for_inference(net, context.device, context.config.irn.compile)
