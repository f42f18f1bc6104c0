"""The random walk in plain PyTorch, on displacement planes; see `c2am.ops.random_walk`."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from c2am.ops import checks, paths


class Link(NamedTuple):
    """A between every pixel i and its neighbour at (dy, dx), 0 where that is a wall."""

    dy: int
    dx: int
    plane: Tensor
    """(H, W) A[i, i + (dy, dx)]."""


def reference(
    cam: Tensor,
    edge: Tensor,
    radius: float,
    beta: float,
    steps: int,
    method: str,
    tolerance: float,
) -> Tensor:
    """(cam * (1 - edge)) T^steps; arguments as of `random_walk`."""
    dtype = checks.accumulation_dtype(cam.dtype)
    edge = edge.to(dtype)
    links = affinities(edge, radius, beta)
    degree = multiply(links, torch.ones_like(edge))

    def step(x: Tensor) -> Tensor:
        return multiply(links, x) / degree  # x A D^-1

    start = cam.to(dtype) * (1 - edge)
    if method == "power":
        result = start
        for _ in range(steps):
            result = step(result)
    else:
        result = chebyshev(step, start, steps, tolerance)
    return result.to(cam.dtype).contiguous()


def affinities(edge: Tensor, radius: float, beta: float) -> list[Link]:
    """A between all pixels of `edge (H, W)` and their neighbours: Eq. 9."""
    links = []
    for path in paths.path_offsets(radius):
        highest = torch.stack([moved(edge, y, x, fill=1) for y, x in path.pixels]).amax(0)
        links.append(Link(path.dy, path.dx, (1 - highest) ** beta))
    return links


def multiply(links: list[Link], x: Tensor) -> Tensor:
    """x (..., H, W) times the symmetric A, whose diagonal is 1."""
    result = x.clone()
    for dy, dx, plane in links:
        result += plane * moved(x, dy, dx, fill=0)
        result += moved(plane * x, -dy, -dx, fill=0)
    return result


def moved(x: Tensor, dy: int, dx: int, *, fill: float) -> Tensor:
    """x[..., i + dy, j + dx] at (i, j), and `fill` where that is outside."""
    height, width = x.shape[-2:]
    above, left = max(-dy, 0), max(-dx, 0)
    padded = F.pad(x, (left, max(dx, 0), above, max(dy, 0)), value=fill)
    return padded[..., above + dy :, left + dx :][..., :height, :width]


def chebyshev(step: Callable[[Tensor], Tensor], x: Tensor, steps: int, tolerance: float) -> Tensor:
    """x T^n = sum over k of c_k y_k with y_0 = x, y_1 = x T, y_{k+1} = 2 y_k T - y_{k-1}."""
    coefficients = chebyshev_coefficients(steps, tolerance)
    previous, current = torch.zeros_like(x), x
    result = coefficients[0] * x
    for k, coefficient in enumerate(coefficients[1:], start=1):
        following = step(current) if k == 1 else 2 * step(current) - previous
        previous, current = current, following
        result = result + coefficient * current
    return result


def chebyshev_coefficients(steps: int, tolerance: float) -> list[float]:
    """c with x^steps = sum_k c_k T_k(x), shortened until what is left out sums to `tolerance`.

    c_k = 2^(1-n) binomial(n, (n-k)/2) for n - k even, half of that for k = 0. All are positive
    and |T_k| <= 1 on [-1, 1], so the sum of those left out bounds the error.
    """
    coefficients = [0.0] * (steps + 1)
    for k in range(steps, -1, -2):
        # Integers are exact here; the quotient is rounded once.
        coefficients[k] = math.comb(steps, (steps - k) // 2) / 2 ** max(steps - (k > 0), 0)
    dropped = 0.0
    while len(coefficients) > 1 and dropped + coefficients[-1] <= tolerance:
        dropped += coefficients.pop()
    return coefficients
