"""Inputs of random_walk for its tests."""

import torch
from torch import Tensor


def maps(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Class maps and boundaries of which some are sharp and some are open."""
    cam = 2 * torch.rand(count, height, width)
    edge = torch.rand(height, width) ** 3
    edge[torch.rand(height, width) < 0.1] = 1
    edge[torch.rand(height, width) < 0.1] = 0
    return cam, edge
