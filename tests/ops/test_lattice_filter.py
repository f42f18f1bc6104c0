"""The lattice filter of the compiled core, which has no op of its own, against its reference."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from c2am import _core
from c2am.ops.permutohedral import PermutohedralLattice


def filtered(features: Tensor, values: Tensor, threads: int = 1) -> Tensor:
    """`features (N, d)` and `values (N, channels)`, float32."""
    points, dimension = features.shape
    lattice = _core.LatticeFilter(features.data_ptr(), points, dimension, threads)
    out = torch.full_like(values, float("nan"))
    lattice.filter(values.data_ptr(), out.data_ptr(), values.shape[1], threads)
    return out


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
