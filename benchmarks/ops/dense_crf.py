"""The labels of IRN (3), the test of DeepLabV2 (21), and how the cost of a pixel grows with size.

375 x 500 pixels with 10 iterations; 188 x 250 and 1080 x 1920 with 5. The peer is pydensecrf2.
On a GPU `native cpu` is the compiled core on CPU tensors, and there are batches of 64 images;
`native sorted` and `native hashed` find the lattice's vertices by sorting or with a hash table
(`native` is one of them), and `sorted lattice` and `hashed lattice` only build it.
`native half` is `precision="half"`, `compat` is `c2am.compat.pydensecrf` with the peer's script:
the usual one, and one that has features of its own and a matrix.
"""

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.images import drawn, photograph
from benchmarks.ops import providers
from benchmarks.runner import Case, Work, best_device
from c2am.ops import dense_crf, unary_from_labels
from c2am.ops.dense_crf_cuda import CudaCrf
from c2am.ops.dense_crf_reference import Kernels
from c2am.ops.permutohedral import PermutohedralLattice

_IRN: dict[str, Any] = {
    "gaussian_sxy": 3.0,
    "gaussian_compat": 3.0,
    "bilateral_sxy": 50.0,
    "bilateral_srgb": 5.0,
    "bilateral_compat": 10.0,
}
_DEEPLAB: dict[str, Any] = {
    "gaussian_sxy": 1.0,
    "gaussian_compat": 3.0,
    "bilateral_sxy": 67.0,
    "bilateral_srgb": 3.0,
    "bilateral_compat": 4.0,
}


@dataclass(frozen=True)
class _Problem:
    image: Tensor  # (H, W, 3) uint8
    unary: Tensor  # (C, H, W) float32
    kernels: dict[str, Any]
    iterations: int


def cases(image: Path | None = None) -> Iterator[Case]:
    """Three sizes; `image` is a photograph, else it is drawn.

    The plain reference takes minutes on the largest size and is not timed there.
    """
    sizes: tuple[tuple[int, int, int, dict[str, Any], int, bool], ...] = (
        (375, 500, 3, _IRN, 10, True),
        (375, 500, 21, _DEEPLAB, 10, True),
        (188, 250, 21, _DEEPLAB, 5, False),
        (1080, 1920, 21, _DEEPLAB, 5, False),
    )
    kind = "photograph" if image else "drawn"
    for height, width, labels, kernels, iterations, with_reference in sizes:
        problem = _problem(height, width, labels, kernels, iterations, image)
        call = partial(
            dense_crf, problem.image, problem.unary, iterations=iterations, **problem.kernels
        )
        ours = providers("dense_crf", call, best_device())
        ours["native half"] = partial(call, backend="native", precision="half")
        ours["compat"] = partial(_usual, "c2am.compat.pydensecrf", problem)
        if not with_reference:
            del ours["reference"]
        if problem.image.is_cuda:
            ours |= _on_cpu(problem)
            ours |= _both_ways(problem.image[None], problem.unary[None], problem)
        yield Case(
            f"{height}x{width}x{labels} i{iterations} {kind}",
            ours,
            peers={"pydensecrf": partial(_usual, "pydensecrf", problem)},
            work={"native": partial(_work, problem)},
            on_host=frozenset({"native cpu", "compat", "pydensecrf"}),
        )
    problem = _problem(375, 500, 21, _DEEPLAB, 10, image)
    yield Case(
        f"375x500x21 i10 {kind} features, matrix",
        {"compat": partial(_general, "c2am.compat.pydensecrf", problem)},
        peers={"pydensecrf": partial(_general, "pydensecrf", problem)},
        on_host=frozenset({"compat", "pydensecrf"}),
    )
    if best_device().type == "cuda":
        for labels, kernels in ((3, _IRN), (21, _DEEPLAB)):
            yield _batch(64, _problem(375, 500, labels, kernels, 10, image), kind)


def _on_cpu(problem: _Problem) -> dict[str, Any]:
    arguments = problem.image.cpu(), problem.unary.cpu()
    call = partial(dense_crf, *arguments, iterations=problem.iterations, **problem.kernels)
    return {"native cpu": partial(call, backend="native")}


def _batch(images: int, problem: _Problem, kind: str) -> Case:
    """The same image several times, which nothing in the op takes advantage of."""
    image, unary = (t.expand(images, *t.shape).contiguous() for t in (problem.image, problem.unary))
    call = partial(
        dense_crf, image, unary, iterations=problem.iterations, backend="native", **problem.kernels
    )
    labels, height, width = problem.unary.shape
    name = f"{images} of {height}x{width}x{labels} i{problem.iterations} {kind}"
    return Case(name, {"native": call} | _both_ways(image, unary, problem))


def _both_ways(image: Tensor, unary: Tensor, problem: _Problem) -> dict[str, Any]:
    """CRFs of `image (B,H,W,3)` with the lattice built in either way, and the lattices alone."""
    kernels = Kernels(**problem.kernels)
    most = CudaCrf.at_once(image, kernels)

    def call(hashed: bool, iterations: int | None) -> Tensor:
        result = torch.empty_like(unary)
        for images, unaries, to in zip(
            *(t.split(most) for t in (image, unary, result)), strict=True
        ):
            crf = CudaCrf(images, kernels, "lattice", "single", hashed=hashed)
            if iterations is not None:
                crf(unaries, iterations, to)
        return result

    calls: dict[str, Any] = {}
    for way, hashed in (("sorted", False), ("hashed", True)):
        calls[f"native {way}"] = partial(call, hashed, problem.iterations)
        calls[f"{way} lattice"] = partial(call, hashed, None)
    return calls


def _problem(
    height: int,
    width: int,
    labels: int,
    kernels: dict[str, Any],
    iterations: int,
    path: Path | None,
) -> _Problem:
    device = best_device()
    image = photograph(path, height, width, device) if path else drawn(height, width, device)
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, labels, (1, 1, 8, 10), generator=generator).float()
    label = torch.nn.functional.interpolate(coarse, (height, width))[0, 0].long().to(device)
    return _Problem(image, unary_from_labels(label, labels, 0.7), kernels, iterations)


def _usual(package: str, problem: _Problem) -> Any:
    dcrf = importlib.import_module(f"{package}.densecrf")
    labels, height, width = problem.unary.shape
    kernels = problem.kernels
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(problem.unary.view(labels, -1).cpu().numpy())
    crf.addPairwiseGaussian(sxy=kernels["gaussian_sxy"], compat=kernels["gaussian_compat"])
    crf.addPairwiseBilateral(
        sxy=kernels["bilateral_sxy"],
        srgb=kernels["bilateral_srgb"],
        rgbim=problem.image.cpu().numpy(),
        compat=kernels["bilateral_compat"],
    )
    return crf.inference(problem.iterations)


def _general(package: str, problem: _Problem) -> Any:
    """Both kernels by `addPairwiseEnergy`, the second with a matrix that is not Potts' model."""
    dcrf, utils = (importlib.import_module(f"{package}.{name}") for name in ("densecrf", "utils"))
    labels, height, width = problem.unary.shape
    kernels = problem.kernels
    image = problem.image.cpu().numpy()
    crf = dcrf.DenseCRF(height * width, labels)
    crf.setUnaryEnergy(problem.unary.view(labels, -1).cpu().numpy())
    place = utils.create_pairwise_gaussian((kernels["gaussian_sxy"],) * 2, (height, width))
    crf.addPairwiseEnergy(place, compat=kernels["gaussian_compat"])
    colour = utils.create_pairwise_bilateral(
        (kernels["bilateral_sxy"],) * 2, (kernels["bilateral_srgb"],) * 3, image, chdim=2
    )
    near = abs(np.subtract.outer(np.arange(labels), np.arange(labels))) == 1
    matrix = 0.5 * near - kernels["bilateral_compat"] * np.eye(labels)
    crf.addPairwiseEnergy(colour, compat=matrix.astype(np.float32))
    return crf.inference(problem.iterations)


def _work(problem: _Problem) -> Work:
    """With N pixels, M lattice vertices, C channels (one less than labels: the marginals sum to 1),
    for each iteration in float32:

    the spatial kernel reads Q, writes its rows and reads them again (3 C N); splatting reads Q and
    6 N entries of a vertex and a weight, and writes C M values; each of 6 blurs reads and writes
    C M values and reads 2 M neighbours; slicing reads C M values and 6 N entries; the update reads
    the unary and writes Q (2 C N). Building the lattice is not counted.
    """
    labels, height, width = problem.unary.shape
    channels, pixels, vertices = labels - 1, height * width, _vertices(problem)
    numbers = channels * (6 * pixels + 14 * vertices) + 2 * 12 * pixels + 12 * vertices
    spread = problem.kernels["gaussian_sxy"] * math.sqrt(-2 * math.log(2.0**-23))
    taps = 2 * (2 * int(spread) + 1)  # of both passes
    softmax = 16  # exponential, maximum, sum, quotient and the message
    flops = channels * (pixels * (2 * taps + 2 * 6 + 2 * 6 + softmax) + 3 * 6 * vertices)
    return Work(bytes=4.0 * problem.iterations * numbers, flops=1.0 * problem.iterations * flops)


def _vertices(problem: _Problem) -> int:
    height, width, _ = problem.image.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([x, y], -1) / problem.kernels["bilateral_sxy"]
    colour = problem.image.cpu() / problem.kernels["bilateral_srgb"]
    return PermutohedralLattice(torch.cat([place, colour], -1).view(-1, 5)).vertices
