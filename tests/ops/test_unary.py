"""Energies from labels and from probabilities."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from c2am import ops


def test_unary_from_labels() -> None:
    labels = torch.tensor([[0, 2, 9]])
    unary = ops.unary_from_labels(labels, 3, 0.7, ignore=9)
    probability = [[0.7, 0.15, 1 / 3], [0.15, 0.15, 1 / 3], [0.15, 0.7, 1 / 3]]
    assert unary.dtype == torch.float32
    assert_close(torch.exp(-unary)[:, 0], torch.tensor(probability))
    assert_close(ops.unary_from_labels(labels[:, :1], 1, 0.7), -torch.tensor([[[0.7]]]).log())


@pytest.mark.parametrize(
    ("name", "labels", "gt_prob"),
    [
        ("labels", torch.tensor([[3]]), 0.7),
        ("labels", torch.tensor([[-1]]), 0.7),
        ("labels", torch.tensor([0]), 0.7),
        ("labels", torch.tensor([[0.0]]), 0.7),
        ("gt_prob", torch.tensor([[0]]), 1.0),
    ],
)
def test_unary_from_labels_names_bad_arguments(name: str, labels: Tensor, gt_prob: float) -> None:
    with pytest.raises((ValueError, TypeError), match=f"unary_from_labels: {name} "):
        ops.unary_from_labels(labels, 3, gt_prob)


def test_unary_from_softmax() -> None:
    probability = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64).view(3, 1, 1)
    expected = torch.tensor([1e-5, 0.25, 1.0], dtype=torch.float64).view(3, 1, 1)
    assert_close(ops.unary_from_softmax(probability), -expected.log())
    assert ops.unary_from_softmax(probability.half()).dtype == torch.float32
    with pytest.raises(ValueError, match="probabilities has values"):
        ops.unary_from_softmax(-probability)
