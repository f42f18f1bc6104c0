"""The DALI pipelines: decode, resize, crop, mirror and normalise, on a CPU or a GPU.

They hold no state and draw nothing: files, sizes, positions and flips come in from Python.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.plugin.pytorch import feed_ndarray
from nvidia.dali.types import DALIDataType, DALIImageType, DALIInterpType

from c2am.normalization import Normalization

PREFETCH = 2
"""Batches that are prepared while the network works on one."""

Columns = tuple[list[np.ndarray], ...]
"""A batch as DALI takes it: one list of arrays per input."""


def training_pipeline(
    source: Callable[[], Columns],
    *,
    crop: int,
    with_masks: bool,
    normalization: Normalization,
    batch_size: int,
    device: torch.device,
    threads: int,
) -> Pipeline:
    """Crops of images and, if asked for, of their masks.

    `source` gives encoded images (n,) uint8, sizes (2,) float32 to resize to, anchors (2,) float32
    (y, x in 0..1), flips () int32 and masks (H, W, 1) uint8. Outputs are `(3, crop, crop)` float32,
    0 where the crop reaches outside, and `(crop, crop, 1)` uint8, 255 there.
    """

    @pipeline_def
    def define() -> tuple[Any, ...]:
        types_in = [DALIDataType.UINT8, DALIDataType.FLOAT, DALIDataType.FLOAT, DALIDataType.INT32]
        inputs = fn.external_source(
            source=source,
            num_outputs=4 + with_masks,
            dtype=types_in + [DALIDataType.UINT8] * with_masks,
            layout=["", "", "", ""] + ["HWC"] * with_masks,
        )
        encoded, size, anchor, flip = inputs[:4]
        place: dict[str, Any] = {
            "crop": (crop, crop),
            "crop_pos_y": anchor[0],
            "crop_pos_x": anchor[1],
            "mirror": flip,
            "out_of_bounds_policy": "pad",
        }
        image = fn.resize(_decode(encoded, device), size=size, **_CUBIC)
        image = _normalize(image, normalization, fill_values=0.0, **place)
        if not with_masks:
            return (image,)
        mask: Any = inputs[4].gpu() if device.type == "cuda" else inputs[4]
        mask = fn.resize(mask, size=size, interp_type=DALIInterpType.INTERP_NN)
        mask = fn.crop_mirror_normalize(
            mask, dtype=DALIDataType.UINT8, output_layout="HWC", fill_values=255.0, **place
        )
        return image, mask

    return _build(define, batch_size, device, threads)


def inference_pipeline(
    source: Callable[[], Columns],
    *,
    scales: int,
    flip: bool,
    normalization: Normalization,
    batch_size: int,
    device: torch.device,
    threads: int,
) -> Pipeline:
    """Whole images: `(H, W, 3)` uint8, then per scale `(V, 3, h, w)` float32.

    `source` gives encoded images (n,) uint8 and, for each scale, the size (2,) float32.
    """

    @pipeline_def
    def define() -> tuple[Any, ...]:
        encoded, *sizes = fn.external_source(
            source=source,
            num_outputs=1 + scales,
            dtype=[DALIDataType.UINT8] + [DALIDataType.FLOAT] * scales,
        )
        image = _decode(encoded, device)
        views = []
        for size in sizes:
            view = fn.resize(image, size=size, **_CUBIC)
            both = [_normalize(view, normalization, mirror=side) for side in range(1 + flip)]
            views.append(fn.stack(*both))
        return image, *views

    return _build(define, batch_size, device, threads)


_CUBIC: dict[str, Any] = {"interp_type": DALIInterpType.INTERP_CUBIC, "antialias": True}


def _decode(encoded: Any, device: torch.device) -> Any:
    if device.type == "cpu":
        return fn.decoders.image(encoded, device="cpu", output_type=DALIImageType.RGB)
    # Fancy upsampling is what the CPU decoder does, so that both see the same colours.
    return fn.decoders.image(
        encoded, device="mixed", output_type=DALIImageType.RGB, jpeg_fancy_upsampling=True
    )


def _normalize(image: Any, normalization: Normalization, **place: Any) -> Any:
    return fn.crop_mirror_normalize(
        image,
        mean=list(normalization.mean),
        std=list(normalization.std),
        dtype=DALIDataType.FLOAT,
        output_layout="CHW",
        **place,
    )


def _build(
    define: Callable[..., Pipeline], batch_size: int, device: torch.device, threads: int
) -> Pipeline:
    index = (device.index or 0) if device.type == "cuda" else None
    pipeline = define(
        batch_size=batch_size,
        num_threads=threads,
        device_id=index,
        prefetch_queue_depth=PREFETCH,
        seed=0,
    )
    pipeline.build()
    return pipeline


def outputs(pipeline: Pipeline, device: torch.device) -> Iterator[list[torch.Tensor]]:
    """Run a pipeline until its source ends; every output as a dense tensor on `device`.

    On a GPU the tensors are ready where its current stream comes to them; the host does not wait.
    """
    while True:
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        try:
            lists = pipeline.run(stream)
        except StopIteration:
            return
        yield [_tensor(each, device, stream) for each in lists]


def _tensor(output: Any, device: torch.device, stream: torch.cuda.Stream | None) -> torch.Tensor:
    dense = output.as_tensor()
    dtype = torch.uint8 if dense.dtype == DALIDataType.UINT8 else torch.float32
    tensor = torch.empty(dense.shape(), dtype=dtype, device=device)
    feed_ndarray(dense, tensor, cuda_stream=stream)
    return tensor


def columns(rows: Iterable[Sequence[np.ndarray]]) -> Columns:
    """Samples as DALI takes them: a list per input."""
    return tuple(list(column) for column in zip(*rows, strict=True))
