"""Autocast around an op changes nothing: each computes in the dtypes of its arguments."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from c2am import ops

PRESENT = torch.tensor([[True, False, True], [False, True, False]])


def extract_cam(x: Tensor) -> Tensor:
    return ops.extract_cam(x.view(2, 2, 4, 3, 3), x[:12].view(3, 4), PRESENT, (5, 6))


def front_door_logits(x: Tensor) -> Tensor:
    return ops.front_door_logits(x[:12].view(3, 4), x.detach()[:36].view(4, 3, 3), pooling="lse")


def front_door_loss(x: Tensor) -> Tensor:
    labels, maps = x.detach()[:12].view(3, 4), x.detach()[:36].view(4, 3, 3)
    return ops.front_door_loss(x[:12].view(3, 4), labels, maps, pooling="lse")


def path_affinity(x: Tensor) -> Tensor:
    return ops.path_affinity(x.view(2, 1, 9, 8), radius=3)


def affinity_loss(x: Tensor) -> Tensor:
    label = torch.arange(144).view(2, 9, 8) % 3
    return ops.affinity_loss(x.view(2, 1, 9, 8), label, radius=3, num_classes=2).total


def displacement_loss(x: Tensor) -> Tensor:
    label = torch.arange(72).view(1, 9, 8) % 3
    return ops.displacement_loss(x.view(1, 2, 9, 8), label, radius=3).total


@pytest.mark.parametrize(
    "op",
    [
        extract_cam,
        front_door_logits,
        front_door_loss,
        path_affinity,
        affinity_loss,
        displacement_loss,
    ],
)
def test_autocast_changes_nothing(op: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(144)
    with torch.autocast("cpu", torch.bfloat16):
        result = op(x)
    assert result.dtype == torch.float32
    assert result.equal(op(x))


@pytest.mark.parametrize(
    "op", [front_door_logits, front_door_loss, path_affinity, affinity_loss, displacement_loss]
)
def test_nor_does_it_change_gradients(op: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(144, requires_grad=True)

    def gradient() -> Tensor:
        return torch.autograd.grad(op(x).square().sum(), x)[0]

    with torch.autocast("cpu", torch.bfloat16):
        inside = gradient()
    assert inside.equal(gradient())
