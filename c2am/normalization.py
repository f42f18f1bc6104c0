"""The input normalisation that a backbone was pretrained with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Normalization:
    """`x -> (x - mean) / std` per RGB channel, all in grey levels (0..255)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
