"""Random walk of class maps up to class boundaries (Ahn et al. 2019, Eq. 8-10).

    A_ij = (1 - max edge on the path from i to j)^beta for |i - j| < radius,    A_ii = 1
    T = A D^-1, D the diagonal of the column sums of A
    result = (cam * (1 - edge)) T^steps

T is never formed: A is kept as one plane per displacement (34 for radius 5), half of them by
symmetry. T is similar to the symmetric D^-1/2 A D^-1/2, so its spectrum lies in [-1, 1] and T^n
can be a Chebyshev sum of far fewer than n products.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from c2am.ops import checks, dispatch
from c2am.ops.random_walk_reference import reference

OP = "random_walk"
Method = Literal["chebyshev", "power"]


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
    checks.tensor(OP, "cam", cam, ("K", "H", "W"), checks.FEATURES)
    checks.tensor(OP, "edge", edge, cam.shape[1:], checks.FEATURES, like=cam)
    checks.no_gradient(OP, cam=cam, edge=edge)
    checks.above(OP, 1, radius=radius)
    checks.above(OP, 0, beta=beta)
    checks.choice(OP, "method", method, ("chebyshev", "power"))
    if steps < 0:
        raise ValueError(f"{OP}: steps is {steps}, expected at least 0")
    if not tolerance >= 0:
        raise ValueError(f"{OP}: tolerance is {tolerance}, expected at least 0")
    return torch.ops.c2am.random_walk(
        cam, edge, float(radius), float(beta), steps, method, float(tolerance), backend
    )


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

    Raises:
        ValueError: not as many cams as edges; and what `random_walk` raises.
    """
    if len(cams) != len(edges):
        raise ValueError(f"{OP}: edges has {len(edges)} images, expected {len(cams)} as cams")
    return [
        random_walk(
            cam,
            edge,
            radius=radius,
            beta=beta,
            steps=steps,
            method=method,
            tolerance=tolerance,
            backend=backend,
        )
        for cam, edge in zip(cams, edges, strict=True)
    ]


def _native_cpu(
    cam: Tensor,
    edge: Tensor,
    radius: float,
    beta: float,
    steps: int,
    method: str,
    tolerance: float,
) -> Tensor:
    from c2am import _core

    maps, boundary = cam.float().contiguous(), edge.float().contiguous()
    out = torch.empty_like(maps)
    dispatch.launches[OP, "native"] += 1
    _core.random_walk(
        maps.data_ptr(),
        boundary.data_ptr(),
        out.data_ptr(),
        *maps.shape,
        radius=radius,
        beta=beta,
        steps=steps,
        chebyshev=method == "chebyshev",
        tolerance=tolerance,
        threads=torch.get_num_threads(),
    )
    return out.to(cam.dtype)


def _native_cuda(
    cam: Tensor,
    edge: Tensor,
    radius: float,
    beta: float,
    steps: int,
    method: str,
    tolerance: float,
) -> Tensor:
    from c2am import _core

    maps, boundary = cam.float().contiguous(), edge.float().contiguous()
    out = torch.empty_like(maps)
    count, height, width = maps.shape
    floats = _core.random_walk_cuda_scratch(count, height, width, radius)
    scratch = maps.new_empty(floats)
    dispatch.launches[OP, "native"] += 1
    with torch.cuda.device(cam.device):
        _core.random_walk_cuda(
            maps.data_ptr(),
            boundary.data_ptr(),
            out.data_ptr(),
            scratch.data_ptr(),
            count,
            height,
            width,
            radius=radius,
            beta=beta,
            steps=steps,
            chebyshev=method == "chebyshev",
            tolerance=tolerance,
            stream=torch.cuda.current_stream().cuda_stream,
        )
    return out.to(cam.dtype)


def _kernel(
    cam: Tensor,
    edge: Tensor,
    radius: float,
    beta: float,
    steps: int,
    method: str,
    tolerance: float,
    backend: str,
) -> Tensor:
    checks.finite(OP, cam=cam)
    checks.within(OP, "edge", edge, 0, 1)
    compute = dispatch.resolve(OP, backend, cam.device)[1]
    if cam.numel() == 0:
        return torch.empty_like(cam, memory_format=torch.contiguous_format)
    return compute(cam, edge, radius, beta, steps, method, tolerance)


def _fake(
    cam: Tensor,
    edge: Tensor,
    radius: float,
    beta: float,
    steps: int,
    method: str,
    tolerance: float,
    backend: str,
) -> Tensor:
    return torch.empty_like(cam, memory_format=torch.contiguous_format)


dispatch.register(
    OP,
    cpu={"native": _native_cpu, "reference": reference},
    cuda={"native": _native_cuda, "reference": reference},
)
dispatch.define(
    OP,
    "(Tensor cam, Tensor edge, float radius, float beta, int steps, str method,"
    " float tolerance, str backend) -> Tensor",
    kernel=_kernel,
    fake=_fake,
)
