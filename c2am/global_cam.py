"""The Global CAM of a set of images, summed in parts: batches, files, ranks (paper, Eq. 2)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from c2am import distributed, ops


class GlobalCamAccumulator:
    """Sum and number of the normalised maps of each class.

    The sums are exact (`ops.accumulate_global_cam` says how), so the Global CAM has the same bits
    whatever the order of the images and however they fall on batches, accumulators and ranks.

    Attributes:
        total: (Z, S, S) float64, sum of the maps of each class.
        count: (Z,) int64, their number, without the maps that are all zero.
    """

    def __init__(self, classes: int, size: int, device: torch.device | str = "cpu") -> None:
        """An empty accumulator of `classes` = Z maps of `size` x `size` = S x S pixels."""
        self.total = torch.zeros(classes, size, size, dtype=torch.float64, device=device)
        self.count = torch.zeros(classes, dtype=torch.int64, device=device)

    def update(self, cam: Tensor, class_index: Tensor) -> None:
        """Add class maps as they come: each is resized to S x S and divided by its max + 1e-5.

        Args:
            cam: (K, h, w) float, at least 0, of any size.
            class_index: (K,) integer, 0..Z-1, the class of each map.

        Raises:
            TypeError, ValueError: as `ops.accumulate_global_cam`.
        """
        ops.accumulate_global_cam(self.total, self.count, cam, class_index, normalize=True)

    def merge(self, other: "GlobalCamAccumulator") -> None:
        """Add the maps of another accumulator of the same Z and S.

        Raises:
            ValueError: it has other shapes.
        """
        self._check(other.state_dict())
        self.total += other.total.to(self.total.device)
        self.count += other.count.to(self.count.device)

    def all_reduce(self) -> None:
        """Add the maps of all ranks, on each of them; with one process, nothing."""
        self.total.copy_(distributed.sum_on_host(self.total))
        self.count.copy_(distributed.sum_on_host(self.count))

    def global_cam(self) -> Tensor:
        """(Z, S, S) float32 in 0..1: the mean map of each class, zero for a class without maps."""
        return (self.total / self.count.clamp_min(1)[:, None, None]).float()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors `total` and `count` themselves, not copies."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the values of a `state_dict`, from any device.

        Raises:
            ValueError: it is of other shapes or dtypes, or has other names.
        """
        self._check(state)
        self.total.copy_(state["total"])
        self.count.copy_(state["count"])

    def _check(self, state: Mapping[str, Tensor]) -> None:
        expected, found = _layout(self.state_dict()), _layout(state)
        if found != expected:
            raise ValueError(f"GlobalCamAccumulator: the state is {found}, expected {expected}")


def _layout(state: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{value.dtype} {tuple(value.shape)}" for name, value in state.items()}
