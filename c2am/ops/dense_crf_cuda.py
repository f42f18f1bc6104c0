"""The compiled dense CRF on a GPU: several images of one size share one lattice."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from c2am.ops import dispatch
from c2am.ops.dense_crf_reference import Kernels

if TYPE_CHECKING:
    from c2am._core import DenseCrfKernels

_MOST_POINTS = (2**31 - 1) // 6
"""Pixels of one call: the six corners of each have numbers of 31 bits."""

_MOST_PIXELS = 2**22
"""Of the images of one call: more fill a GPU no better, and take memory (about 1 kB a pixel)."""

_HASHED = False
"""Whether vertices are found with a hash table or by sorting: until a GPU has timed both."""


class CudaCrf:
    """The CRF of `images (B, H, W, 3)` uint8 on their GPU.

    `hashed` says how the lattice's vertices are found: see hashing.h and sorting.h of
    csrc/dense_crf/device. All memory is torch's. Building waits for the GPU once, to learn the
    number of vertices. Threads and streams may share a CRF: each inference has memory of its own,
    and waits for the building.

    Raises:
        ValueError: the image is too large, or a standard deviation of the bilateral kernel too
            small for the 62 bits of a vertex's key; by name.
        RuntimeError: an error of CUDA.
    """

    def __init__(
        self,
        images: Tensor,
        kernels: Kernels,
        method: str,
        precision: str,
        *,
        hashed: bool = _HASHED,
    ) -> None:
        from c2am import _core

        assert method == "lattice"
        pixels = images.contiguous()
        self._device = pixels.device
        self._half = precision == "half"
        batch, height, width, _ = pixels.shape
        _check_size(height, width, kernels)
        index = self._device.index
        self._crf = _core.DenseCrfCuda(
            batch, height, width, _compiled(kernels), device=index, hashed=hashed
        )
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            queue = stream.cuda_stream
            self._points = self._block(self._crf.points_bytes())
            finding = self._block(self._crf.find_bytes())
            count = torch.empty(1, dtype=torch.int32, device=self._device)
            self._crf.find(
                pixels.data_ptr(),
                points=self._points.data_ptr(),
                scratch=finding.data_ptr(),
                vertices=count.data_ptr(),
                stream=queue,
            )
            vertices = int(count)
            self._vertices = self._block(self._crf.vertices_bytes(vertices))
            scratch = self._block(self._crf.build_bytes(vertices))
            self._crf.build(
                vertices,
                block=self._vertices.data_ptr(),
                scratch=scratch.data_ptr(),
                stream=queue,
            )
            self._built = stream.record_event()

    @staticmethod
    def at_once(images: Tensor, kernels: Kernels) -> int:
        """How many of `images (B, H, W, 3)` one CRF takes."""
        from c2am import _core

        _, height, width, _ = images.shape
        most = _core.DenseCrfCuda.most_images(height, width, _compiled(kernels))
        return max(1, min(most, _MOST_PIXELS // (height * width)))

    def __call__(self, unary: Tensor, iterations: int, result: Tensor) -> None:
        """Write marginals or labels of `unary (B, C, H, W)` into `result`, as its dtype says."""
        labels = result.dtype == torch.uint8
        energy = unary.to(torch.float32).contiguous()
        direct = labels or result.dtype == torch.float32
        written = result if direct else torch.empty_like(energy)
        classes = energy.shape[1]
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self._built)
            for kept in (self._points, self._vertices):
                kept.record_stream(stream)
            scratch = self._block(self._crf.infer_bytes(classes, self._half))
            dispatch.launches["dense_crf", "native"] += 1
            self._crf.infer(
                energy.data_ptr(),
                marginals=0 if labels else written.data_ptr(),
                labels=written.data_ptr() if labels else 0,
                classes=classes,
                iterations=iterations,
                half=self._half,
                scratch=scratch.data_ptr(),
                stream=stream.cuda_stream,
            )
        if not direct:
            result.copy_(written)

    def _block(self, size: int) -> Tensor:
        # When it is freed, its memory goes to later work of the same stream only.
        return torch.empty(size, dtype=torch.uint8, device=self._device)


def _check_size(height: int, width: int, kernels: Kernels) -> None:
    """Refuse what a GPU's lattice cannot number.

    Raises:
        ValueError: names the argument.
    """
    from c2am import _core

    if _core.DenseCrfCuda.most_images(height, width, _compiled(kernels)) > 0:
        return
    if height * width > _MOST_POINTS:
        raise ValueError(
            f"dense_crf: image is {height} x {width}, expected at most {_MOST_POINTS} pixels on a "
            "GPU; split it"
        )
    steps = {
        "bilateral_sxy": max(height, width) / kernels.bilateral_sxy,
        "bilateral_srgb": 255 / kernels.bilateral_srgb,
    }
    name = max(steps, key=steps.__getitem__)
    raise ValueError(
        f"dense_crf: {name} is {getattr(kernels, name)}, too small for a GPU and an image of "
        f"{height} x {width}, whose lattice has more than 2^62 places; CPU tensors may have more"
    )


def _compiled(kernels: Kernels) -> "DenseCrfKernels":
    from c2am import _core

    return _core.DenseCrfKernels(**kernels._asdict())
