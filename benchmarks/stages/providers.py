"""The ways to run a stage: whole, loading alone, the network alone; and peers."""

import importlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.stages import PER_IMAGE, peers
from benchmarks.stages.recorder import Recorder
from c2am import precision
from c2am.config import TrainConfig
from c2am.data.loader import TrainBatch, TrainLoader
from c2am.stages.context import StageContext
from c2am.trainer import train

Provider = Callable[[StageContext, Recorder], object]


def providers(stage: str, backbone: str) -> dict[str, Provider]:
    """The providers of a stage, by name."""
    module = importlib.import_module(f"c2am.stages.{stage}")
    if stage == "cam":
        kinds = {"whole": _cam_whole, "loading": _cam_loading, "network": _cam_network}
        return {name: partial(function, module) for name, function in kinds.items()}
    if stage in PER_IMAGE:
        return {"whole": partial(_per_image, module)}
    loops: dict[str, Callable[..., Any]] = {"whole": train, "loading": _loading, "network": _fixed}
    if stage == "classifier" and backbone in peers.BACKBONES:
        loops |= {"eager": peers.eager, "torchvision": peers.torchvision_v2}
    return {name: partial(_with_loop, module, loop) for name, loop in loops.items()}


def _with_loop(
    module: ModuleType, loop: Callable[..., Any], context: StageContext, recorder: Recorder
) -> None:
    """The stage's own set-up with another loop in the trainer's place."""
    module.train = loop  # type: ignore[attr-defined]
    module.run(context)


def _loading(task: Any, loader: TrainLoader, config: TrainConfig, **kept: Any) -> None:
    for step, _ in enumerate(loader.batches(0), 1):
        synchronize(kept["device"])
        if step % config.log_every == 0:
            kept["events"].log(step, {})


class _Repeated:
    """A loader whose first batch, on the device already, is all there is."""

    steps_per_epoch = 1.0

    def __init__(self, loader: TrainLoader) -> None:
        self.batch = next(loader.batches(0))

    def batches(self, start: int) -> Iterator[TrainBatch]:
        while True:
            yield self.batch


def _fixed(task: Any, loader: TrainLoader, config: TrainConfig, **kept: Any) -> dict:
    repeated, device, events = _Repeated(loader), kept["device"], kept["events"]
    task.net.to(device).train()
    with precision.autocast(device, config.precision), FlopCounterMode(display=False) as counter:
        terms = task.loss(repeated.batch, 0.0)
        torch.stack(list(terms.values())).sum().backward()
    task.net.zero_grad()
    events.gflop_per_image = counter.get_total_flops() / 1e9 / len(repeated.batch.ids)
    events.matmul_gflop_s = matmul_gflop_s(device, config.precision)
    return train(task, repeated, config, **kept)


def _cam_whole(module: ModuleType, context: StageContext, recorder: Recorder) -> None:
    save = module.save_batch

    def save_and_note(files: Any, ids: list[str], *rest: Any) -> None:
        save(files, ids, *rest)
        recorder.add(len(ids))

    module.save_batch = save_and_note  # type: ignore[attr-defined]
    module.write_class_maps(context, context.dataset.ids(context.config.data.train_list))


def _cam_loading(module: ModuleType, context: StageContext, recorder: Recorder) -> None:
    none = torch.empty(0), torch.empty(0)
    module.both_maps = lambda *arguments: none  # type: ignore[attr-defined]
    _cam_without_saving(module, context, recorder)


def _cam_network(module: ModuleType, context: StageContext, recorder: Recorder) -> None:
    load, both_maps = module.inference_batches, module.both_maps

    def repeat(*arguments: Any, **options: Any) -> Iterator[Any]:
        batch = next(load(*arguments, **options))
        while True:
            yield batch

    def count(context: StageContext, method: Any, net: Any, batch: Any) -> Any:
        module.both_maps = both_maps  # type: ignore[attr-defined]
        # Uncompiled: what first runs under a counter, torch.compile leaves alone from then on.
        compiled, net._compiled_call_impl = net._compiled_call_impl, None
        with FlopCounterMode(display=False) as counter:
            maps = both_maps(context, method, net, batch)
        net._compiled_call_impl = compiled
        recorder.gflop_per_image = counter.get_total_flops() / 1e9 / len(batch.ids)
        recorder.matmul_gflop_s = matmul_gflop_s(
            context.device, context.config.classifier.precision
        )
        return maps

    module.inference_batches = repeat  # type: ignore[attr-defined]
    module.both_maps = count  # type: ignore[attr-defined]
    _cam_without_saving(module, context, recorder)


def _cam_without_saving(module: ModuleType, context: StageContext, recorder: Recorder) -> None:
    def note(files: Any, ids: list[str], *rest: Any) -> None:
        synchronize(context.device)
        recorder.add(len(ids))

    module.save_batch = note  # type: ignore[attr-defined]
    module.write_class_maps(context, context.dataset.ids(context.config.data.train_list))


def _per_image(module: ModuleType, context: StageContext, recorder: Recorder) -> None:
    """`irn_labels`, and `pseudo_masks` without a sweep: an image is done with its mask."""
    write = module.write_mask

    def write_and_note(*arguments: Any) -> None:
        write(*arguments)
        recorder.add(1)

    module.write_mask = write_and_note  # type: ignore[attr-defined]
    if context.name.startswith("pseudo_masks"):
        ids = context.dataset.ids(context.config.data.train_list)
        module.write_masks_at_once(context, ids, context.config.pseudo_masks.threshold)
    else:
        module.run(context)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def matmul_gflop_s(device: torch.device, kind: str) -> float:
    """The best of some products of large matrices, in the type that the stage computes in."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.rand(side, side, device=device)
    with precision.autocast(device, kind):
        a = a.to((a[:1, :1] @ a[:1, :1]).dtype)
    seconds = []
    for _ in range(6):
        synchronize(device)
        since = time.perf_counter()
        a @ a
        synchronize(device)
        seconds.append(time.perf_counter() - since)
    return 2 * side**3 / min(seconds) / 1e9
