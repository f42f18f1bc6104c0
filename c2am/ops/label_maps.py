"""Labels of pixels from class maps at a fraction of the image's size (Ahn et al. 2019, Section 5).

    M      = the maps, resized `stride` times as large (bilinear) and cropped to the image
    label  = class + 1 of the largest M / max(M) at a pixel, 0 where that is not above the threshold

max(M) is over all pixels and maps of the image, and no less than 1e-5.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from c2am.ops import checks, dispatch
from c2am.ops.bilinear import resize
from c2am.ops.random_walk import Method, check_images, random_walk_batch

OP = "label_maps"
MAX_CLASS = 253
"""255 stands for void in masks."""

_LEAST_MAXIMUM = 1e-5


def label_maps(
    maps: Sequence[Tensor],
    classes: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    *,
    threshold: float,
    stride: int = 4,
    backend: str = "auto",
) -> list[Tensor]:
    """Label maps of some images, each from the maps of its classes.

    Args:
        maps: (K_b, h_b, w_b) float of each image.
        classes: (K_b,) integer, 0..253, of its maps; CPU tensors.
        sizes: (H_b, W_b) of the image, at most `stride` times as large as the maps.
        threshold: Of the background; a pixel is foreground where a quotient is above it. Of equal
            quotients the first map's class is taken.
        stride: Pixels of the image per pixel of the maps.
        backend: See `docs/ops.md`. The native one computes in float32, on a GPU all images in two
            launches.

    Returns:
        (H_b, W_b) uint8 of each image on the device of the maps: 0, or class + 1.

    Raises:
        TypeError, ValueError: a wrong argument, by name; `maps` not finite (CPU only).
    """
    _check("maps", maps, classes, sizes, threshold, stride)
    if not maps:
        return []
    flat = [side for size in sizes for side in size]
    return torch.ops.c2am.label_maps(
        list(maps), list(classes), flat, stride, float(threshold), backend
    )


def random_walk_labels(
    cams: Sequence[Tensor],
    edges: Sequence[Tensor],
    classes: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    *,
    threshold: float,
    stride: int = 4,
    radius: float = 5.0,
    beta: float = 10.0,
    steps: int = 256,
    method: Method = "chebyshev",
    tolerance: float = 1e-6,
    backend: str = "auto",
) -> list[Tensor]:
    """`label_maps` of what `random_walk_batch` makes: on a GPU only labels have to leave it.

    Arguments, results and errors are those of the two; `backend` is that of both. Maps of 16 bits
    are walked and labelled in float32.
    """
    check_images(cams, edges)
    _check("cams", cams, classes, sizes, threshold, stride)
    walked = random_walk_batch(
        [cam.to(checks.accumulation_dtype(cam.dtype)) for cam in cams],
        edges,
        radius=radius,
        beta=beta,
        steps=steps,
        method=method,
        tolerance=tolerance,
        backend=backend,
    )
    return label_maps(walked, classes, sizes, threshold=threshold, stride=stride, backend=backend)


def _check(
    name: str,
    maps: Sequence[Tensor],
    classes: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    threshold: float,
    stride: int,
) -> None:
    """Check the arguments of `label_maps`, whose maps the caller knows by `name`."""
    for other, values in (("classes", classes), ("sizes", sizes)):
        if len(values) != len(maps):
            got, expected = len(values), len(maps)
            raise ValueError(f"{OP}: {other} has length {got}, expected {expected} as {name}")
    checks.above(OP, 0, stride=stride)
    checks.above(OP, -float("inf"), threshold=threshold)
    for b, (each, of_maps, size) in enumerate(zip(maps, classes, sizes, strict=True)):
        checks.tensor(OP, f"{name}[{b}]", each, ("K", "h", "w"), checks.FEATURES, like=maps[0])
        checks.no_gradient(OP, **{f"{name}[{b}]": each})
        checks.tensor(OP, f"classes[{b}]", of_maps, each.shape[:1], checks.INTEGERS)
        if of_maps.device.type != "cpu":
            raise ValueError(f"{OP}: classes[{b}] is on {of_maps.device}, expected cpu")
        _check_size(b, size, each, stride)


def _check_size(b: int, size: tuple[int, int], maps: Tensor, stride: int) -> None:
    if not isinstance(size, Sequence) or len(size) != 2:
        raise ValueError(f"{OP}: sizes[{b}] is {size}, expected two numbers (H, W)")
    for side, of_maps in zip(size, maps.shape[1:], strict=True):
        if not 0 <= side <= stride * of_maps:
            largest = tuple(stride * of_map for of_map in maps.shape[1:])
            raise ValueError(f"{OP}: sizes[{b}] is {tuple(size)}, expected at most {largest}")


Size = tuple[int, int]


def _reference(
    maps: list[Tensor], classes: list[Tensor], sizes: list[Size], stride: int, threshold: float
) -> list[Tensor]:
    return [
        _one_image(each.to(checks.accumulation_dtype(each.dtype)), of_maps, size, stride, threshold)
        for each, of_maps, size in zip(maps, classes, sizes, strict=True)
    ]


def _one_image(maps: Tensor, classes: Tensor, size: Size, stride: int, threshold: float) -> Tensor:
    height, width = (stride * side for side in maps.shape[1:])
    full = resize(maps, (height, width))[:, : size[0], : size[1]]
    value, index = (full / full.amax().clamp_min(_LEAST_MAXIMUM)).max(0)
    labels = classes.to(full.device)[index] + 1
    return torch.where(value > threshold, labels, 0).to(torch.uint8)


def _native(
    maps: list[Tensor], classes: list[Tensor], sizes: list[Size], stride: int, threshold: float
) -> list[Tensor]:
    """In float32, all images in one call."""
    from c2am import _core

    device = maps[0].device
    used = [each.float().contiguous() for each in maps]
    outs = [each.new_empty(size, dtype=torch.uint8) for each, size in zip(maps, sizes, strict=True)]
    labels = [(each.to(torch.int64) + 1).tolist() for each in classes]
    images = [
        (each.data_ptr(), of_maps, out.data_ptr(), *each.shape, *out.shape)
        for each, of_maps, out in zip(used, labels, outs, strict=True)
    ]
    options: dict[str, Any] = {"stride": stride, "threshold": threshold}
    dispatch.launches[OP, "native"] += 1
    if device.type != "cuda":
        _core.label_maps(images, **options, threads=torch.get_num_threads())
        return outs
    labelling = _core.LabelMapsCuda(images, **options, device=device.index)
    # Freed memory goes to later work of the same stream only.
    block = torch.empty(labelling.bytes(), dtype=torch.uint8, device=device)
    labelling.run(block.data_ptr(), stream=torch.cuda.current_stream().cuda_stream)
    return outs


def _kernel(
    maps: list[Tensor],
    classes: list[Tensor],
    sizes: list[int],
    stride: int,
    threshold: float,
    backend: str,
) -> list[Tensor]:
    for b, (each, of_maps) in enumerate(zip(maps, classes, strict=True)):
        checks.finite(OP, **{f"maps[{b}]": each})
        _check_range(b, of_maps)
    compute = dispatch.resolve(OP, backend, maps[0].device)[1]
    pairs = list(zip(sizes[::2], sizes[1::2], strict=True))
    results = _fake(maps, classes, sizes, stride, threshold, backend)
    for each, out in zip(maps, results, strict=True):
        if len(each) == 0:
            out.zero_()  # without maps all is background
    some = [b for b, out in enumerate(results) if len(maps[b]) > 0 and out.numel() > 0]
    if some:
        computed = compute(
            [maps[b] for b in some],
            [classes[b] for b in some],
            [pairs[b] for b in some],
            stride,
            threshold,
        )
        for b, labels in zip(some, computed, strict=True):
            results[b] = labels
    return results


def _check_range(b: int, classes: Tensor) -> None:
    if classes.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(classes))
    if low < 0 or high > MAX_CLASS:
        raise ValueError(
            f"{OP}: classes[{b}] has values from {low} to {high}, expected 0 to {MAX_CLASS}"
        )


def _fake(
    maps: list[Tensor],
    classes: list[Tensor],
    sizes: list[int],
    stride: int,
    threshold: float,
    backend: str,
) -> list[Tensor]:
    return [
        each.new_empty(size, dtype=torch.uint8)
        for each, size in zip(maps, zip(sizes[::2], sizes[1::2], strict=True), strict=True)
    ]


dispatch.register(
    OP,
    cpu={"native": _native, "reference": _reference},
    cuda={"native": _native, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor[] maps, Tensor[] classes, SymInt[] sizes, int stride, float threshold, str backend)"
    " -> Tensor[]",
    kernel=_kernel,
    fake=_fake,
)
