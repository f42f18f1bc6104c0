"""Tensors between the host and a GPU, without either waiting for the other."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`; work that is queued there sees it, nobody waits."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


class ToHost:
    """Tensors on their way to the host: copied where their device comes to it.

    Tensors of a CPU are taken as they are.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = tuple(_copy(tensor) for tensor in tensors)
        device = tensors[0].device
        self._done = None
        if device.type == "cuda":
            # Blocking: a thread that waits sleeps, where it would else keep a core busy.
            self._done = torch.cuda.Event(blocking=True)
            self._done.record(torch.cuda.current_stream(device))

    def wait(self) -> tuple[Tensor, ...]:
        """The tensors, when they have arrived. Any thread may wait."""
        if self._done is not None:
            self._done.synchronize()
        return self._tensors


def _copy(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
