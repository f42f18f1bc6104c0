"""The kernels of the compiled mean field, which has no op of its own, against their references."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from c2am import _core
from c2am.ops.permutohedral import PermutohedralLattice


def messages(values: Tensor, threads: int, add: Callable[..., None]) -> Tensor:
    """Of `values (N, channels)`; `add(field, ...)` adds a kernel, which is not normalised."""
    points, channels = values.shape
    field = _core.MeanField(points, channels)
    compat = -torch.eye(channels)
    add(field, normalization=0, compat=compat.data_ptr(), threads=threads)
    planes, out = values.T.contiguous(), torch.full((channels, points), float("nan"))
    field.messages(planes.data_ptr(), out.data_ptr(), threads=threads)
    return out.T


def filtered(features: Tensor, values: Tensor, threads: int = 1) -> Tensor:
    """`features (N, d)` and `values (N, channels)`, float32."""
    rows = features.T.contiguous()

    def add(field: Any, **options: int) -> None:
        field.add_lattice(rows.data_ptr(), *features.shape, **options)

    return messages(values, threads, add)


@pytest.mark.parametrize("channels", [1, 2, 33])
@pytest.mark.parametrize("sigmas", [(3.0, 1.5), (0.1, 40.0)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 200), (150, 1), (31, 50)], ids=str)
def test_spatial_kernel(size: tuple[int, int], sigmas: tuple[float, float], channels: int) -> None:
    height, width = size
    values = torch.rand(height * width, channels)
    for threads in (1, 3):
        result = messages(
            values, threads, lambda field, **o: field.add_spatial(*size, *sigmas, **o)
        )
        grid = values.double().view(height, width, channels)
        across, down = (_gaussian(n, s) for n, s in zip((width, height), sigmas, strict=True))
        expected = torch.einsum("yv,xu,vuc->yxc", down, across, grid)
        assert_close(result.double(), expected.flatten(0, 1), rtol=1e-5, atol=1e-5)


def _gaussian(extent: int, sigma: float) -> Tensor:
    at = torch.arange(extent, dtype=torch.float64) / sigma
    return torch.exp(-0.5 * (at[:, None] - at) ** 2)


@pytest.mark.parametrize("channels", [1, 2, 3, 20, 33])
@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("points", [1, 7, 400])
def test_matches_reference(points: int, dimension: int, channels: int) -> None:
    features, values = 2 * torch.randn(points, dimension), torch.rand(points, channels)
    expected = PermutohedralLattice(features).filter(values.double().T).T
    assert_close(filtered(features, values).double(), expected, rtol=1e-5, atol=1e-6)


def test_wide_features_have_keys_of_more_than_64_bits() -> None:
    features, values = torch.rand(50, 8) * 1e4, torch.rand(50, 3)
    features[25:] = features[:25] + 0.1
    expected = PermutohedralLattice(features).filter(values.double().T).T
    assert_close(filtered(features, values).double(), expected, rtol=1e-5, atol=1e-6)


def test_points_on_the_faces_of_a_simplex() -> None:
    """Equal and whole coordinates: a point touches vertices of weight 0, which pass values on."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0, 2.0])] * 3)
    values = torch.rand(len(corners), 2)
    expected = PermutohedralLattice(corners).filter(values.double().T).T
    assert_close(filtered(corners, values).double(), expected, rtol=1e-5, atol=1e-6)


def test_approximates_the_gaussian() -> None:
    """Both normalised by the sum of the weights, in two dimensions, densely sampled."""
    features, values = 3 * torch.rand(2000, 2), torch.rand(2000, 1)
    values += features[:, :1]
    kernel = torch.exp(-0.5 * torch.cdist(features, features) ** 2)
    expected = kernel @ values / kernel.sum(1, keepdim=True)
    result = filtered(features, values) / filtered(features, torch.ones(2000, 1))
    assert (result - expected).abs().mean() < 0.03
    assert (result - expected).abs().max() < 0.2


@pytest.mark.parametrize("channels", [2, 40])
def test_the_number_of_threads_changes_nothing(channels: int) -> None:
    features, values = 3 * torch.randn(3000, 4), torch.rand(3000, channels)
    expected = filtered(features, values)
    for threads in (2, 3, 5):
        assert filtered(features, values, threads).equal(expected)


def test_features_too_wide_for_the_lattice_are_an_error() -> None:
    with pytest.raises(ValueError, match="standard deviation of a kernel too small"):
        filtered(1e14 * torch.rand(9, 5), torch.rand(9, 1))
