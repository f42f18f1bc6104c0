"""Memory for large results on the CPU."""

import math

import torch
from torch import Tensor


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised CPU tensor whose memory, once released, serves the next one.

    PyTorch gets a large tensor's pages from the system anew each time, which for the marginals of
    a dense CRF takes longer than to write them. Not for a tensor that is to be resized.
    """
    from c2am import _core

    size = math.prod(shape)
    # frombuffer takes no empty buffer; a deterministic PyTorch fills what it allocates.
    if size == 0 or torch.are_deterministic_algorithms_enabled():
        return torch.empty(shape, dtype=dtype, device="cpu")
    return torch.frombuffer(_core.Memory(size * dtype.itemsize), dtype=dtype).view(shape).detach()
