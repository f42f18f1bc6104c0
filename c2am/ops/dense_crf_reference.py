"""The dense CRF in plain PyTorch: mean-field inference (Kraehenbuehl & Koltun 2011, Alg. 1).

Q <- softmax(-U + sum over kernels of compat * n_i sum_j k_ij n_j Q_j),
n_i = (sum_j k_ij + 1e-20)^-1/2, with the self term k_ii
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from c2am.ops.permutohedral import PermutohedralLattice

Filter = Callable[[Tensor], Tensor]
"""(C, N) -> (C, N): sum over j of k_ij times the value at pixel j."""

_BLOCK = 2**24
"""Entries of the N x N matrix that the exact kernel forms at once."""


class Kernels(NamedTuple):
    """Standard deviations (pixels, grey levels) and Potts compatibilities of the two kernels."""

    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float


class ReferenceCrf:
    """The CRF of `image (H, W, 3)` uint8, with the bilateral kernel exact or on the lattice."""

    def __init__(self, image: Tensor, kernels: Kernels, *, exact: bool = False) -> None:
        features = _features(image, kernels)
        bilateral = _exact_filter(features) if exact else PermutohedralLattice(features).filter
        self.filters = (
            (kernels.gaussian_compat, _spatial_filter(image, kernels.gaussian_sxy)),
            (kernels.bilateral_compat, bilateral),
        )

    def __call__(self, unary: Tensor, iterations: int) -> Tensor:
        """Marginals (C, H, W) for `unary (C, H, W)`, computed in its dtype."""
        energy = unary.flatten(1)
        ones = torch.ones_like(energy[:1])
        norms = [(filtered(ones) + 1e-20).rsqrt() for _, filtered in self.filters]
        q = torch.softmax(-energy, 0)
        for _ in range(iterations):
            messages = torch.zeros_like(energy)
            for (compat, filtered), norm in zip(self.filters, norms, strict=True):
                messages += compat * norm * filtered(norm * q)
            q = torch.softmax(messages - energy, 0)
        return q.view_as(unary)


def _features(image: Tensor, kernels: Kernels) -> Tensor:
    """(N, 5) float64: x, y, red, green, blue, each in standard deviations."""
    height, width, _ = image.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([x, y], -1).to(image.device, torch.float64) / kernels.bilateral_sxy
    colour = image.double() / kernels.bilateral_srgb
    return torch.cat([place, colour], -1).flatten(0, 1)


def _spatial_filter(image: Tensor, sigma: float) -> Filter:
    """exp(-|p_i - p_j|^2 / 2 sigma^2), which is a product of one Gaussian per axis."""
    height, width, _ = image.shape

    def gaussian(extent: int) -> Tensor:
        at = torch.arange(extent, dtype=torch.float64, device=image.device) / sigma
        return torch.exp(-0.5 * (at[:, None] - at) ** 2)

    down, across = gaussian(height), gaussian(width)

    def filtered(values: Tensor) -> Tensor:
        grid = values.view(-1, height, width)
        return (down.to(values.dtype) @ grid @ across.to(values.dtype)).flatten(1)

    return filtered


def _exact_filter(features: Tensor) -> Filter:
    """exp(-|f_i - f_j|^2 / 2) over all pairs of `features (N, 5)`, in blocks of rows."""
    blocks = features.split(max(_BLOCK // max(len(features), 1), 1))

    def rows(block: Tensor, values: Tensor) -> Tensor:
        distance = torch.cdist(block, features, compute_mode="donot_use_mm_for_euclid_dist")
        return values @ torch.exp(-0.5 * distance**2).to(values.dtype).T

    return lambda values: torch.cat([rows(block, values) for block in blocks], 1)
