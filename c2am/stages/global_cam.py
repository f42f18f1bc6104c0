"""Stage `global_cam`: the mean normalised CAM of each class over the training list (Eq. 2).

One pass of the baseline classifier: for each image and each of its classes the CAM, summed over
scales and mirrors at stride 4, is resized bilinearly to S x S and divided by its max + 1e-5. A
class's Global CAM is the mean over the images whose map is not all zero.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from c2am import distributed, ops
from c2am.data.loader import InferenceBatch
from c2am.methods import build_method
from c2am.stages.class_maps import resize
from c2am.stages.context import StageContext
from c2am.stages.loaders import inference_batches
from c2am.stages.multi_scale import strided_maps, trained_classifier
from c2am.workspace import read_metadata, read_tensors, write_tensors

_SAVE_EVERY = 50  # batches


class Accumulator:
    """Sum and number of the maps of each class, kept in a file so that a killed pass continues."""

    def __init__(self, path: Path, classes: int, size: int, device: torch.device) -> None:
        self.path = path
        self.total = torch.zeros(classes, size, size, dtype=torch.float64, device=device)
        self.count = torch.zeros(classes, dtype=torch.int64, device=device)
        self.done: list[str] = []
        if path.exists():
            tensors = read_tensors(path)
            self.total.copy_(tensors["total"])
            self.count.copy_(tensors["count"])
            self.done = json.loads(read_metadata(path)["done"])

    def add(self, maps: Tensor, batch: InferenceBatch) -> None:
        """Add the maps (K, h, w) of a batch."""
        side = self.total.shape[-1]
        maps = ops.normalize_cam(resize(maps, (side, side)))
        class_index = batch.present.nonzero()[:, 1]
        ops.accumulate_global_cam(self.total, self.count, maps, class_index)
        self.done += batch.ids

    def save(self) -> None:
        """Write sum, number and the images they are made of."""
        tensors = {"total": self.total, "count": self.count}
        write_tensors(self.path, tensors, {"done": json.dumps(self.done)})


def run(context: StageContext) -> dict:
    """Write `global_cam.safetensors`; metrics: M_z, the mean of each map, and its image count."""
    rank, world = distributed.rank(), distributed.world_size()
    partial = context.folder / f"partial-{rank}-of-{world}.safetensors"
    classes = context.dataset.classes
    size = context.config.global_cam.size
    accumulator = Accumulator(partial, len(classes), size, context.device)
    accumulate(context, accumulator)
    total = distributed.all_reduce_sum(accumulator.total)
    count = distributed.all_reduce_sum(accumulator.count)
    global_cam = (total / count.clamp_min(1)[:, None, None]).float()
    if distributed.is_main():
        tensors = {"total": total, "count": count, "global_cam": global_cam}
        write_tensors(context.folder / "global_cam.safetensors", tensors)
    partial.unlink(missing_ok=True)
    means = global_cam.mean((1, 2)).tolist()
    return {
        "mean": dict(zip(classes, means, strict=True)),
        "images": dict(zip(classes, count.tolist(), strict=True)),
    }


@torch.inference_mode()
def accumulate(context: StageContext, accumulator: Accumulator) -> None:
    """Pass over this rank's images that `accumulator` does not hold yet."""
    config = context.config
    done = set(accumulator.done)
    ids = distributed.shard(context.dataset.ids(config.data.train_list))
    todo = [image_id for image_id in ids if image_id not in done]
    if not todo:
        return
    net = trained_classifier(context, context.shared("classifier") / "weights.safetensors")
    method = build_method("cam", config.front_door)
    batches = inference_batches(
        context,
        todo,
        net.backbone.normalization,
        context.name,
        scales=config.cam.scales,
        flip=config.cam.flip,
        batch_size=config.cam.batch_size,
    )
    for index, batch in enumerate(batches, start=1):
        accumulator.add(strided_maps(context, method, net, batch), batch)
        if index % _SAVE_EVERY == 0:
            accumulator.save()
    accumulator.save()
