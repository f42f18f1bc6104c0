"""Dense CRF: mean-field inference in a fully connected CRF (Kraehenbuehl & Koltun 2011).

Potts compatibilities, a spatial and a bilateral Gaussian kernel, both normalised symmetrically;
the bilateral one is filtered on the permutohedral lattice (Adams et al. 2010).
"""

import math
from typing import Literal

import torch
from torch import Tensor

from c2am.ops import checks, dispatch
from c2am.ops.dense_crf_reference import Kernels, ReferenceCrf

OP = "dense_crf"
MAX_CLASSES = 255


def dense_crf(
    image: Tensor,
    unary: Tensor,
    *,
    iterations: int = 10,
    gaussian_sxy: float = 3.0,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 50.0,
    bilateral_srgb: float = 5.0,
    bilateral_compat: float = 10.0,
    method: Literal["lattice", "exact"] = "lattice",
    backend: str = "auto",
) -> Tensor:
    """Marginals of a dense CRF.

    Args:
        image: (H, W, 3) or (B, H, W, 3) uint8.
        unary: (C, H, W) or (B, C, H, W) float32 or float64, energies -log p; C is 1 to 255.
        iterations: Mean-field updates; 0 gives the softmax of -unary.
        gaussian_sxy: Standard deviation of the spatial kernel, in pixels.
        gaussian_compat: Its weight.
        bilateral_sxy: Standard deviation of the bilateral kernel, in pixels.
        bilateral_srgb: The same in grey levels (0..255).
        bilateral_compat: Its weight.
        method: `exact` sums over all pairs of pixels, in O(N^2), with the reference only.
        backend: See `docs/ops.md`. The native one computes in float32.

    Returns:
        The marginals Q, of the shape and dtype of `unary`. Not differentiable.

    Raises:
        TypeError, ValueError: a wrong argument, by name; `unary` not finite (CPU only).
    """
    kernels = Kernels(
        gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat
    )
    batch = ("B",) if isinstance(unary, Tensor) and unary.ndim == 4 else ()
    _check_image(image, batch, kernels)
    _check_unary(unary, image, iterations)
    checks.choice(OP, "method", method, ("lattice", "exact"))
    images, unaries = (image, unary) if batch else (image[None], unary[None])
    result = torch.ops.c2am.dense_crf(
        images, unaries, iterations, [float(k) for k in kernels], method, backend
    )
    return result if batch else result[0]


class DenseCrfPlan:
    """The kernels of one image, for several inferences on it: `plan(unary, iterations=10)`.

    Building them is a good part of the cost of `dense_crf`, whose arguments these are.
    """

    def __init__(
        self,
        image: Tensor,
        *,
        gaussian_sxy: float = 3.0,
        gaussian_compat: float = 3.0,
        bilateral_sxy: float = 50.0,
        bilateral_srgb: float = 5.0,
        bilateral_compat: float = 10.0,
        backend: str = "auto",
    ) -> None:
        kernels = Kernels(
            gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat
        )
        _check_image(image, (), kernels)
        self._image = image
        self._infer = dispatch.resolve(OP, backend, image.device)[1](image, kernels)

    def __call__(self, unary: Tensor, *, iterations: int = 10) -> Tensor:
        """Marginals (C, H, W) for `unary (C, H, W)`; see `dense_crf`."""
        _check_unary(unary, self._image, iterations)
        checks.finite(OP, unary=unary)
        return self._infer(unary, iterations)


def unary_from_labels(
    labels: Tensor, num_classes: int, gt_prob: float, *, ignore: int | None = None
) -> Tensor:
    """Energies of a label map that is right with probability `gt_prob`.

    Args:
        labels: (H, W) integer, 0..C-1 or `ignore`.
        num_classes: C.
        gt_prob: Probability of a pixel's label, in (0, 1); the other classes share the rest.
        ignore: Pixels with this label get the same energy for every class.

    Returns:
        (C, H, W) float32, the values of pydensecrf's function of this name.

    Raises:
        TypeError, ValueError: a wrong argument, by name.
    """
    op = "unary_from_labels"
    checks.tensor(op, "labels", labels, ("H", "W"), checks.INTEGERS)
    if not 0 < gt_prob < 1:
        raise ValueError(f"{op}: gt_prob is {gt_prob}, expected a number between 0 and 1")
    unsure = torch.zeros_like(labels, dtype=torch.bool) if ignore is None else labels == ignore
    index = labels.long().masked_fill(unsure, 0)
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < num_classes:
        got = f"has values from {int(index.min())} to {int(index.max())}"
        raise ValueError(f"{op}: labels {got}, expected 0 to {num_classes - 1}")
    others = -math.log((1 - gt_prob) / max(num_classes - 1, 1))
    unary = torch.full((num_classes, *labels.shape), others, device=labels.device)
    unary.scatter_(0, index[None], -math.log(gt_prob))
    return unary.masked_fill_(unsure, math.log(num_classes))


def unary_from_softmax(probabilities: Tensor, *, clip: float = 1e-5) -> Tensor:
    """Energies -log p of `probabilities (C, H, W)`, which are raised to `clip` at least.

    Raises:
        TypeError, ValueError: a wrong argument, by name; not in 0..1 (CPU only).
    """
    op = "unary_from_softmax"
    checks.tensor(op, "probabilities", probabilities, ("C", "H", "W"), checks.FEATURES)
    checks.within(op, "probabilities", probabilities, 0, 1 + 1e-3)
    checks.above(op, 0, clip=clip)
    wide = probabilities.to(checks.accumulation_dtype(probabilities.dtype))
    return -wide.clamp(clip, 1).log()


def _check_image(image: Tensor, batch: tuple[str, ...], kernels: Kernels) -> None:
    checks.tensor(OP, "image", image, (*batch, "H", "W", 3), (torch.uint8,))
    if 0 in image.shape[-3:]:
        raise ValueError(f"{OP}: image has shape {tuple(image.shape)}, expected H and W above 0")
    for name, value in kernels._asdict().items():
        checks.above(OP, -math.inf if name.endswith("compat") else 0, **{name: value})


def _check_unary(unary: Tensor, image: Tensor, iterations: int) -> None:
    *batch, height, width, _ = image.shape
    checks.tensor(OP, "unary", unary, (*batch, "C", height, width), checks.FLOATS, like=image)
    checks.no_gradient(OP, unary=unary)
    if not 1 <= unary.shape[-3] <= MAX_CLASSES:
        raise ValueError(f"{OP}: unary has {unary.shape[-3]} classes, expected 1 to {MAX_CLASSES}")
    if iterations < 0:
        raise ValueError(f"{OP}: iterations is {iterations}, expected at least 0")


class _NativeCrf:
    """The compiled CRF of `image (H, W, 3)` uint8 on the CPU."""

    def __init__(self, image: Tensor, kernels: Kernels) -> None:
        from c2am import _core

        pixels = image.contiguous()
        height, width, _ = pixels.shape
        self._crf = _core.DenseCrf(
            pixels.data_ptr(),
            height,
            width,
            **kernels._asdict(),
            threads=torch.get_num_threads(),
        )

    def __call__(self, unary: Tensor, iterations: int) -> Tensor:
        energy = unary.to(torch.float32).contiguous()
        marginals = torch.empty_like(energy)
        dispatch.launches[OP, "native"] += 1
        self._crf.run(
            energy.data_ptr(),
            marginals=marginals.data_ptr(),
            labels=0,
            classes=len(energy),
            iterations=iterations,
            threads=torch.get_num_threads(),
        )
        return marginals.to(unary.dtype)


def _kernel(
    image: Tensor,
    unary: Tensor,
    iterations: int,
    kernels: list[float],
    method: str,
    backend: str,
) -> Tensor:
    checks.finite(OP, unary=unary)
    if method == "exact" and backend not in ("auto", "reference"):
        raise dispatch.BackendError(f"{OP}: method 'exact' has the backend 'reference' only")
    compute = dispatch.resolve(OP, backend, image.device)[1]
    result = torch.empty_like(unary, memory_format=torch.contiguous_format)
    for b in range(len(image)):
        if method == "exact":
            crf = ReferenceCrf(image[b], Kernels(*kernels), exact=True)
        else:
            crf = compute(image[b], Kernels(*kernels))
        result[b] = crf(unary[b], iterations)
    return result


def _fake(
    image: Tensor,
    unary: Tensor,
    iterations: int,
    kernels: list[float],
    method: str,
    backend: str,
) -> Tensor:
    return torch.empty_like(unary, memory_format=torch.contiguous_format)


dispatch.register(
    OP,
    cpu={"native": _NativeCrf, "reference": ReferenceCrf},
    cuda={"reference": ReferenceCrf},
)
dispatch.define(
    OP,
    "(Tensor image, Tensor unary, int iterations, float[] kernels, str method, str backend)"
    " -> Tensor",
    kernel=_kernel,
    fake=_fake,
)
