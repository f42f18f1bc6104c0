"""Stage `global_cam`: the mean normalised CAM of each class over the training list (Eq. 2).

One pass of the baseline classifier: for each image and each of its classes the CAM, summed over
scales and mirrors at stride 4, is resized bilinearly to S x S and divided by its max + 1e-5. A
class's Global CAM is the mean over the images whose map is not all zero.
"""

import json
from pathlib import Path

import torch

from c2am import distributed
from c2am.global_cam import GlobalCamAccumulator
from c2am.methods import build_method
from c2am.provenance import fingerprint
from c2am.stages.context import StageContext
from c2am.stages.lists import own_batches
from c2am.stages.loaders import inference_batches
from c2am.stages.multi_scale import strided_maps, trained_classifier
from c2am.transfer import to_device
from c2am.workspace import read_metadata, read_tensors, write_tensors

_SAVE_EVERY = 50  # batches


def run(context: StageContext) -> dict:
    """Write `global_cam.safetensors`; metrics: M_z, the mean of each map, and its image count."""
    rank, world = distributed.rank(), distributed.world_size()
    partial = context.folder / f"partial-{rank}-of-{world}.safetensors"
    classes = context.dataset.classes
    size = context.config.global_cam.size
    accumulator = GlobalCamAccumulator(len(classes), size, context.device)
    accumulate(context, accumulator, partial)
    accumulator.all_reduce()
    global_cam = accumulator.global_cam()
    if distributed.is_main():
        tensors = accumulator.state_dict() | {"global_cam": global_cam}
        write_tensors(context.folder / "global_cam.safetensors", tensors)
    partial.unlink(missing_ok=True)
    means = global_cam.mean((1, 2)).tolist()
    return {
        "mean": dict(zip(classes, means, strict=True)),
        "images": dict(zip(classes, accumulator.count.tolist(), strict=True)),
    }


@torch.inference_mode()
def accumulate(context: StageContext, accumulator: GlobalCamAccumulator, partial: Path) -> None:
    """Pass over this rank's images; goes on from what a killed pass has left in `partial`."""
    config = context.config
    train = context.dataset.ids(config.data.train_list)
    ids = own_batches(context.dataset, train, config.cam.batch_size)
    share = fingerprint(ids)
    done = _resume(accumulator, partial, share)
    known = set(done)
    todo = [image_id for image_id in ids if image_id not in known]
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
        maps = strided_maps(context, method, net, batch)
        accumulator.update(maps, to_device(batch.present.nonzero()[:, 1], maps.device))
        done += batch.ids
        if index % _SAVE_EVERY == 0:
            _save(accumulator, partial, done, share)
    _save(accumulator, partial, done, share)


def _resume(accumulator: GlobalCamAccumulator, partial: Path, share: str) -> list[str]:
    """Load what `partial` holds, if it is there; the images it is made of.

    It is left where it is of another share of the images than this rank's, the fingerprint
    `share`: another `cam.batch_size` splits them in another way.
    """
    metadata = read_metadata(partial) if partial.exists() else {}
    if metadata.get("share") != share:
        return []
    accumulator.load_state_dict(read_tensors(partial))
    return json.loads(metadata["done"])


def _save(accumulator: GlobalCamAccumulator, partial: Path, done: list[str], share: str) -> None:
    metadata = {"done": json.dumps(done), "share": share}
    write_tensors(partial, accumulator.state_dict(), metadata)
