"""Random walk of class maps up to class boundaries (Ahn et al. 2019, Eq. 8-10).

    A_ij = (1 - max edge on the path from i to j)^beta for |i - j| < radius,    A_ii = 1
    T = A D^-1, D the diagonal of the column sums of A
    result = (cam * (1 - edge)) T^steps

T is never formed: A is kept as one plane per displacement (34 for radius 5), half of them by
symmetry. T is similar to the symmetric D^-1/2 A D^-1/2, so its spectrum lies in [-1, 1] and T^n
can be a Chebyshev sum of far fewer than n products.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from c2am.ops import checks, dispatch
from c2am.ops.random_walk_reference import reference

OP = "random_walk"
Method = Literal["chebyshev", "power"]
_Image = tuple[int, int, int, int, int, int]
"""Addresses of an image's `cam`, `edge` and result, then K, H, W."""


def random_walk(
    cam: Tensor,
    edge: Tensor,
    *,
    radius: float = 5.0,
    beta: float = 10.0,
    steps: int = 256,
    method: Method = "chebyshev",
    tolerance: float = 1e-6,
    backend: str = "auto",
) -> Tensor:
    """Spread class maps along paths that cross no boundary.

    Args:
        cam: (K, H, W) float, any values.
        edge: (H, W) float, boundary probability in 0..1.
        radius: Pixels closer than this are linked, in pixels; above 1.
        beta: Power of the affinities, above 0.
        steps: Number of steps of the walk; 0 gives `cam * (1 - edge)`.
        method: `power` multiplies by T `steps` times. `chebyshev` uses the polynomial of the
            least degree (78 for 256 steps) for which the error is at most
            `tolerance` times cam (1 - edge), both in the norm |x|^2 = sum_i D_i x_i^2. It does no
            more products than `power`.
        tolerance: As said, at least 0.
        backend: See `docs/ops.md`. The native one computes in float32.

    Returns:
        (K, H, W) of the dtype of `cam`. Not differentiable.

    Raises:
        TypeError, ValueError: a wrong argument, by name; `cam` not finite or `edge` not in 0..1
            (CPU only).
    """
    (result,) = random_walk_batch(
        [cam],
        [edge],
        radius=radius,
        beta=beta,
        steps=steps,
        method=method,
        tolerance=tolerance,
        backend=backend,
    )
    return result


def random_walk_batch(
    cams: Sequence[Tensor],
    edges: Sequence[Tensor],
    *,
    radius: float = 5.0,
    beta: float = 10.0,
    steps: int = 256,
    method: Method = "chebyshev",
    tolerance: float = 1e-6,
    backend: str = "auto",
) -> list[Tensor]:
    """`random_walk` of images of any sizes: `cams[b] (K_b, H_b, W_b)`, `edges[b] (H_b, W_b)`.

    Several images are computed at a time: on the CPU by the threads that torch uses, on a GPU those
    of similar width in the same launches.

    Raises:
        ValueError: not as many cams as edges; and what `random_walk` raises.
    """
    check_images(cams, edges)
    checks.above(OP, 1, radius=radius)
    checks.above(OP, 0, beta=beta)
    checks.choice(OP, "method", method, ("chebyshev", "power"))
    checks.count(OP, steps=steps)
    if not tolerance >= 0:
        raise ValueError(f"{OP}: tolerance is {tolerance}, expected at least 0")
    if not cams:
        return []
    return torch.ops.c2am.random_walk(
        list(cams),
        list(edges),
        float(radius),
        float(beta),
        steps,
        method,
        float(tolerance),
        backend,
    )


def check_images(cams: Sequence[Tensor], edges: Sequence[Tensor]) -> None:
    """The checks of `random_walk_batch` that are of its tensors."""
    if len(cams) != len(edges):
        raise ValueError(f"{OP}: edges has length {len(edges)}, expected {len(cams)} as cams")
    for cam, edge in zip(cams, edges, strict=True):
        checks.tensor(OP, "cam", cam, ("K", "H", "W"), checks.FEATURES, like=cams[0])
        checks.tensor(OP, "edge", edge, cam.shape[1:], checks.FEATURES, like=cam)
        checks.no_gradient(OP, cam=cam, edge=edge)


def _native(
    cams: list[Tensor],
    edges: list[Tensor],
    radius: float,
    beta: float,
    steps: int,
    method: str,
    tolerance: float,
) -> list[Tensor]:
    """In float32, all images in one call."""
    from c2am import _core

    maps = [cam.float().contiguous() for cam in cams]
    boundaries = [edge.float().contiguous() for edge in edges]
    outs = [torch.empty_like(cam) for cam in maps]
    images = _images(maps, boundaries, outs)
    walk: dict[str, Any] = {
        "radius": radius,
        "beta": beta,
        "steps": steps,
        "chebyshev": method == "chebyshev",
        "tolerance": tolerance,
    }
    dispatch.launches[OP, "native"] += 1
    if cams[0].is_cuda:
        _queue(images, walk, cams[0].device)
    else:
        _core.random_walk(images, **walk, threads=torch.get_num_threads())
    return [out.to(cam.dtype) for out, cam in zip(outs, cams, strict=True)]


def _images(
    cams: Sequence[Tensor], edges: Sequence[Tensor], outs: Sequence[Tensor]
) -> list[_Image]:
    """The images as the compiled core takes them."""
    return [
        (cam.data_ptr(), edge.data_ptr(), out.data_ptr(), *_sizes(cam))
        for cam, edge, out in zip(cams, edges, outs, strict=True)
    ]


def _sizes(cam: Tensor) -> tuple[int, int, int]:
    count, height, width = cam.shape
    return count, height, width


def _queue(images: Sequence[_Image], walk: dict[str, Any], device: torch.device) -> None:
    """Queue the images on the current stream of a GPU, which is the current one."""
    from c2am import _core

    walks = _core.RandomWalkCuda(images, **walk, device=device.index)
    # Freed memory goes to later work of the same stream only.
    block = torch.empty(walks.bytes(), dtype=torch.uint8, device=device)
    walks.run(block.data_ptr(), stream=torch.cuda.current_stream().cuda_stream)


def _reference(cams: list[Tensor], edges: list[Tensor], *walk: Any) -> list[Tensor]:
    return [reference(cam, edge, *walk) for cam, edge in zip(cams, edges, strict=True)]


def _kernel(
    cams: list[Tensor],
    edges: list[Tensor],
    radius: float,
    beta: float,
    steps: int,
    method: str,
    tolerance: float,
    backend: str,
) -> list[Tensor]:
    for cam, edge in zip(cams, edges, strict=True):
        checks.finite(OP, cam=cam)
        checks.within(OP, "edge", edge, 0, 1)
    compute = dispatch.resolve(OP, backend, cams[0].device)[1]
    results = _fake(cams)
    used = [b for b, cam in enumerate(cams) if cam.numel() > 0]
    if used:
        some, their_edges = [cams[b] for b in used], [edges[b] for b in used]
        computed = compute(some, their_edges, radius, beta, steps, method, tolerance)
        for b, result in zip(used, computed, strict=True):
            results[b] = result
    return results


def _fake(cams: list[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(cam, memory_format=torch.contiguous_format) for cam in cams]


dispatch.register(
    OP,
    cpu={"native": _native, "reference": _reference},
    cuda={"native": _native, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor[] cams, Tensor[] edges, float radius, float beta, int steps, str method,"
    " float tolerance, str backend) -> Tensor[]",
    kernel=_kernel,
    fake=_fake,
)
