"""The input normalisation that a backbone was pretrained with."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """`x -> (x - mean) / std` per RGB channel, all in grey levels (0..255)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def convert(self, views: Tensor, to: "Normalization") -> Tensor:
        """`views (..., 3, H, W)` of this normalisation in that of another network."""
        if to == self:
            return views
        mean, std, to_mean, to_std = (
            views.new_tensor(values)[:, None, None]
            for values in (self.mean, self.std, to.mean, to.std)
        )
        return (views * std + mean - to_mean) / to_std
