"""Dense CRF: mean-field inference in a fully connected CRF (Kraehenbuehl & Koltun 2011).

Potts compatibilities, a spatial and a bilateral Gaussian kernel, both normalised symmetrically;
the bilateral one is filtered on the permutohedral lattice (Adams et al. 2010).
"""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from c2am.ops import checks, dispatch, memory
from c2am.ops.dense_crf_cuda import CudaCrf
from c2am.ops.dense_crf_reference import Kernels, ReferenceCrf

OP = "dense_crf"
MAX_CLASSES = 255

Method = Literal["lattice", "exact"]
Precision = Literal["single", "half"]
Output = Literal["marginals", "labels"]


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
    method: Method = "lattice",
    precision: Precision = "single",
    output: Output = "marginals",
    backend: str = "auto",
) -> Tensor:
    """Marginals of a dense CRF, or the labels that they make the most probable.

    Args:
        image: (H, W, 3) or (B, H, W, 3) uint8.
        unary: (C, H, W) or (B, C, H, W) float32 or float64, energies -log p; C is 1 to 255.
        iterations: Mean-field updates; 0 gives the softmax of -unary.
        gaussian_sxy: Standard deviation of the spatial kernel, in pixels.
        gaussian_compat: Its weight.
        bilateral_sxy: Standard deviation of the bilateral kernel, in pixels.
        bilateral_srgb: The same in grey levels (0..255).
        bilateral_compat: Its weight.
        method: `exact` sums the bilateral kernel over all pairs of pixels, in O(N^2); on a GPU
            it is the reference's.
        precision: `half` stores values of the lattice in 16 bits, on a CPU those that the pixels
            read (native; all arithmetic is in float32). That changes few labels, where two are
            nearly as probable, and on a CPU it gains no time.
        output: `labels` for the arg max of Q, without its (C, H, W) array.
        backend: See `docs/ops.md`. The native one computes in float32.

    Returns:
        The marginals Q, of the shape and dtype of `unary`, or labels (H, W) or (B, H, W) uint8.
        Not differentiable. The native ones on a CPU cannot be resized in place.

    Raises:
        TypeError, ValueError: a wrong argument, by name; `unary` not finite (CPU only).
    """
    kernels = Kernels(
        gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat
    )
    batch = ("B",) if isinstance(unary, Tensor) and unary.ndim == 4 else ()
    _check_image(image, batch, kernels)
    _check_unary(unary, image, iterations)
    options = _options(method, precision, output)
    images, unaries = (image, unary) if batch else (image[None], unary[None])
    result = torch.ops.c2am.dense_crf(
        images, unaries, iterations, [float(k) for k in kernels], *options, backend
    )
    return result if batch else result[0]


class DenseCrfPlan:
    """The kernels of one image, for several inferences on it: `plan(unary, iterations=10)`.

    Building them is a good part of the cost of `dense_crf`, whose arguments these are. Several
    threads may call a plan at once.
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
        method: Method = "lattice",
        precision: Precision = "single",
        backend: str = "auto",
    ) -> None:
        kernels = Kernels(
            gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat
        )
        _check_image(image, (), kernels)
        _options(method, precision, "marginals")
        self._image = image
        build = _implementation(backend, image.device, method)
        self._crf = build(image[None], kernels, method, precision)

    def __call__(
        self, unary: Tensor, *, iterations: int = 10, output: Output = "marginals"
    ) -> Tensor:
        """Marginals (C, H, W) or labels (H, W) for `unary (C, H, W)`; see `dense_crf`."""
        _check_unary(unary, self._image, iterations)
        checks.choice(OP, "output", output, get_args(Output))
        checks.finite(OP, unary=unary)
        result = _empty(type(self._crf), unary, output)
        self._crf(unary[None], iterations, result[None])
        return result


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
    checks.count(OP, iterations=iterations)


def _options(method: str, precision: str, output: str) -> tuple[str, str, str]:
    checks.choice(OP, "method", method, get_args(Method))
    checks.choice(OP, "precision", precision, get_args(Precision))
    checks.choice(OP, "output", output, get_args(Output))
    return method, precision, output


class _OneImage:
    """A CRF that takes one image at a time."""

    @staticmethod
    def at_once(images: Tensor, kernels: Kernels) -> int:
        return 1


class _NativeCrf(_OneImage):
    """The compiled CRF of `images (1, H, W, 3)` uint8 on the CPU."""

    def __init__(self, images: Tensor, kernels: Kernels, method: str, precision: str) -> None:
        from c2am import _core

        pixels = images[0].contiguous()
        height, width, _ = pixels.shape
        self._half = precision == "half"
        self._crf = _core.DenseCrf(
            pixels.data_ptr(),
            height,
            width,
            **kernels._asdict(),
            exact=method == "exact",
            threads=torch.get_num_threads(),
        )

    def __call__(self, unary: Tensor, iterations: int, result: Tensor) -> None:
        """Write marginals or labels into `result (1, ...)`, as its dtype says."""
        labels = result.dtype == torch.uint8
        energy = unary[0].to(torch.float32).contiguous()
        direct = labels or result.dtype == torch.float32
        written = result[0] if direct else memory.empty(tuple(energy.shape), energy.dtype)
        dispatch.launches[OP, "native"] += 1
        self._crf.run(
            energy.data_ptr(),
            marginals=0 if labels else written.data_ptr(),
            labels=written.data_ptr() if labels else 0,
            classes=len(energy),
            iterations=iterations,
            half=self._half,
            threads=torch.get_num_threads(),
        )
        if not direct:
            result[0].copy_(written)


class _ReferenceCrf(_OneImage):
    """The CRF in plain PyTorch; its precision is that of the unaries."""

    def __init__(self, images: Tensor, kernels: Kernels, method: str, precision: str) -> None:
        self._crf = ReferenceCrf(images[0], kernels, exact=method == "exact")

    def __call__(self, unary: Tensor, iterations: int, result: Tensor) -> None:
        marginals = self._crf(unary[0], iterations)
        result[0].copy_(marginals.argmax(0) if result.dtype == torch.uint8 else marginals)


def _implementation(backend: str, device: torch.device, method: str) -> Any:
    """The class that computes. On a GPU only the reference sums over all pairs."""
    if method == "exact" and device.type == "cuda":
        if backend == "native":
            raise dispatch.BackendError(
                f"{OP}: backend 'native' has no method 'exact' on CUDA tensors; 'reference' has"
            )
        backend = "reference" if backend == "auto" else backend
    return dispatch.resolve(OP, backend, device)[1]


def _result_of(unary: Tensor, output: str) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of the result for `unary (..., C, H, W)`."""
    if output == "marginals":
        return tuple(unary.shape), unary.dtype
    *batch, _, height, width = unary.shape
    return (*batch, height, width), torch.uint8


def _empty(implementation: Any, unary: Tensor, output: str) -> Tensor:
    shape, dtype = _result_of(unary, output)
    if implementation is _NativeCrf:
        return memory.empty(shape, dtype)
    return unary.new_empty(shape, dtype=dtype)


def _kernel(
    image: Tensor,
    unary: Tensor,
    iterations: int,
    kernels: list[float],
    method: str,
    precision: str,
    output: str,
    backend: str,
) -> Tensor:
    checks.finite(OP, unary=unary)
    build = _implementation(backend, image.device, method)
    result = _empty(build, unary, output)
    if len(image) == 0:
        return result
    of_kernels = Kernels(*kernels)
    most = build.at_once(image, of_kernels)
    for images, unaries, to in zip(
        image.split(most), unary.split(most), result.split(most), strict=True
    ):
        build(images, of_kernels, method, precision)(unaries, iterations, to)
    return result


def _fake(
    image: Tensor,
    unary: Tensor,
    iterations: int,
    kernels: list[float],
    method: str,
    precision: str,
    output: str,
    backend: str,
) -> Tensor:
    shape, dtype = _result_of(unary, output)
    return unary.new_empty(shape, dtype=dtype)


dispatch.register(
    OP,
    cpu={"native": _NativeCrf, "reference": _ReferenceCrf},
    cuda={"native": CudaCrf, "reference": _ReferenceCrf},
)
dispatch.define(
    OP,
    "(Tensor image, Tensor unary, int iterations, float[] kernels, str method, str precision,"
    " str output, str backend) -> Tensor",
    kernel=_kernel,
    fake=_fake,
)
