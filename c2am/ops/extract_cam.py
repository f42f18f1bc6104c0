"""Class activation maps of the classes that are present (Zhou et al. 2016; paper, Eq. 1).

For image b and a class z of its labels, with f the last features of the image and f' those of its
mirror,

    CAM = relu(w_z . f) + mirror(relu(w_z . f'))

resized to `size`. The 1x1 product is computed for the (image, class) pairs that are present only.
"""

import torch
from torch import Tensor

from c2am.ops import checks, dispatch
from c2am.ops.bilinear import resize, resize_native

OP = "extract_cam"


def extract_cam(
    features: Tensor,
    weight: Tensor,
    present: Tensor,
    size: tuple[int, int],
    *,
    flip: bool = True,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Maps of the present classes of a batch, at one scale.

    Not differentiable: call it under `torch.no_grad()` where an argument requires a gradient.

    Args:
        features: (B, V, C, h, w) float, float16 or bfloat16 too; V = 2, the image and its mirror,
            or V = 1 with `flip=False`.
        weight: (Z, C) float, of the 1x1 classifier.
        present: (B, Z) bool, the image labels; on the CPU, or on the device of `features`, which
            the host then waits for, since K is a size.
        size: (H, W) of the maps; bilinear with `align_corners=False`.
        flip: Whether the second view is the mirror, whose maps are mirrored back and added.
        out: (K, H, W), to which the maps are added in place (for the sum over scales).
        backend: See `docs/ops.md`.

    Returns:
        (K, H, W) float32 (float64 for float64 features), or `out`. K = present.sum(), in the
        row-major order of `present`: images first, then classes.

    Raises:
        TypeError, ValueError: a wrong argument, by name; `features` or `weight` not finite
            (CPU only).
    """
    checks.tensor(OP, "features", features, ("B", 1 + flip, "C", "h", "w"), checks.FEATURES)
    batch, _, channels = features.shape[:3]
    checks.tensor(OP, "weight", weight, ("Z", channels), checks.FEATURES, like=features)
    on_cpu = isinstance(present, Tensor) and present.device.type == "cpu"
    like = None if on_cpu else features
    checks.tensor(OP, "present", present, (batch, len(weight)), (torch.bool,), like=like)
    height, width = size
    checks.above(OP, 0, height=height, width=width, h=features.shape[3], w=features.shape[4])
    checks.no_gradient(OP, features=features, weight=weight)
    if out is None:
        return torch.ops.c2am.extract_cam(features, weight, present, height, width, flip, backend)
    dtype = checks.accumulation_dtype(features.dtype)
    checks.tensor(OP, "out", out, ("K", height, width), (dtype,), like=features)
    torch.ops.c2am.extract_cam_add(out, features, weight, present, flip, backend)
    return out


def _reference(
    features: Tensor,
    weight: Tensor,
    present: Tensor,
    size: tuple[int, int],
    flip: bool,
    out: Tensor | None,
) -> Tensor:
    checks.finite(OP, features=features)
    dtype = checks.accumulation_dtype(features.dtype)
    maps = []
    for views, classes in zip(features, present, strict=True):
        product = torch.einsum("kc,vchw->vkhw", weight[classes].to(dtype), views.to(dtype)).relu_()
        maps.append(product[0] + product[1].flip(-1) if flip else product[0])
    if not any(map(len, maps)):
        cam = features.new_zeros(0, *size, dtype=dtype)
    else:
        cam = resize(torch.cat(maps), size)
    return cam if out is None else out.add_(cam)


def _native_cpu(
    features: Tensor,
    weight: Tensor,
    present: Tensor,
    size: tuple[int, int],
    flip: bool,
    out: Tensor | None,
) -> Tensor:
    maps = _class_maps(features, weight, present)
    if out is None and maps.shape[1:] == size:
        return maps
    result = maps.new_empty(len(maps), *size) if out is None else out.contiguous()
    resize_native(maps, result, add=out is not None)
    return result if out is None or result is out else out.copy_(result)


def _class_maps(features: Tensor, weight: Tensor, present: Tensor) -> Tensor:
    """The maps (K, h, w) at the resolution of the features, which are read once."""
    from c2am import _core

    # Features of images without labels take no part, but NaN is refused there too.
    checks.finite(OP, features=features[~present.any(1)])
    batch, views, channels, height, width = features.shape
    dtype = checks.accumulation_dtype(features.dtype)
    maps = features.new_empty(int(present.sum()), height, width, dtype=dtype)
    if maps.numel() == 0:
        return maps
    channels_last = not features.is_contiguous() and features.movedim(2, -1).is_contiguous()
    values = features if channels_last else features.contiguous()
    weights, pairs = weight.to(dtype).contiguous(), present.contiguous()
    dispatch.launches[OP, "native"] += 1
    finite = _core.class_maps(
        values.data_ptr(),
        weights.data_ptr(),
        pairs.data_ptr(),
        maps.data_ptr(),
        batch,
        views,
        channels,
        height,
        width,
        classes=len(weight),
        channels_last=channels_last,
        dtype=str(features.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )
    if not finite:  # else the features are finite too, which saves a pass over them
        checks.finite(OP, features=features)
    return maps


def _triton(
    features: Tensor,
    weight: Tensor,
    present: Tensor,
    size: tuple[int, int],
    flip: bool,
    out: Tensor | None,
) -> Tensor:
    from c2am.kernels import extract_cam as kernels

    checks.finite(OP, features=features)
    pairs = present.nonzero()  # waits for a GPU that `present` is on
    dtype = checks.accumulation_dtype(features.dtype)
    if len(pairs) == 0:
        return features.new_empty(0, *size, dtype=dtype) if out is None else out
    one_stride = features.stride(3) == features.shape[4] * features.stride(4)
    values = features if one_stride else features.contiguous()
    dispatch.launches[OP, "triton"] += 1
    maps = kernels.class_maps(values, weight.contiguous(), present, pairs)
    if out is None and maps.shape[1:] == size:
        return maps
    result = maps.new_empty(len(maps), *size) if out is None else out.contiguous()
    kernels.resize(maps, result, add=out is not None)
    return result if out is None or result is out else out.copy_(result)


def _kernel(
    features: Tensor,
    weight: Tensor,
    present: Tensor,
    height: int,
    width: int,
    flip: bool,
    backend: str,
) -> Tensor:
    checks.finite(OP, weight=weight)
    compute = dispatch.resolve(OP, backend, features.device)[1]
    return compute(features, weight, present, (height, width), flip, None)


def _kernel_add(
    out: Tensor, features: Tensor, weight: Tensor, present: Tensor, flip: bool, backend: str
) -> None:
    _, height, width = out.shape
    checks.tensor(OP, "out", out, (int(present.sum()), height, width), (out.dtype,))
    checks.finite(OP, weight=weight)
    compute = dispatch.resolve(OP, backend, features.device)[1]
    compute(features, weight, present, (height, width), flip, out)


def _fake(
    features: Tensor,
    weight: Tensor,
    present: Tensor,
    height: int,
    width: int,
    flip: bool,
    backend: str,
) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    dtype = checks.accumulation_dtype(features.dtype)
    return features.new_empty(count, height, width, dtype=dtype)


def _fake_add(
    out: Tensor, features: Tensor, weight: Tensor, present: Tensor, flip: bool, backend: str
) -> None:
    return None


dispatch.register(
    OP,
    cpu={"native": _native_cpu, "reference": _reference, "triton": _triton},
    cuda={"triton": _triton, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor features, Tensor weight, Tensor present, SymInt height, SymInt width, bool flip,"
    " str backend) -> Tensor",
    kernel=_kernel,
    fake=_fake,
)
dispatch.define(
    "extract_cam_add",
    "(Tensor(a!) out, Tensor features, Tensor weight, Tensor present, bool flip, str backend)"
    " -> ()",
    kernel=_kernel_add,
    fake=_fake_add,
)
