"""Strided CAMs of 3 classes (a 375 x 500 image is 94 x 125), 256 steps, and the usual ways.

`scipy` multiplies by T as a sparse matrix 256 times, `scipy products` has that built; `torch dense`
squares T as a matrix of all pixel pairs eight times (2^8 = 256), as IRN was released, where that
fits. On a GPU `torch sparse` is what `scipy` is on the CPU, and `native cpu` the compiled core on
CPU tensors.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.ops import providers
from benchmarks.runner import Case, Work, best_device
from c2am.ops import path_affinity, path_offsets, random_walk, random_walk_batch
from c2am.ops.random_walk_reference import chebyshev_coefficients

OP = "random_walk"
RADIUS, BETA, STEPS = 5, 10, 256


def links(edge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of A above the diagonal, from `edge (H,W)`; built as IRN does."""
    height, width = edge.shape
    r = RADIUS - 1
    padded = torch.nn.functional.pad(edge, (r, r, 0, r), value=1.0)
    affinity = path_affinity(padded[None, None], radius=RADIUS, backend="reference")[0] ** BETA
    pixels = torch.arange(height * width, device=edge.device).view(height, width)
    targets = torch.nn.functional.pad(pixels, (r, r, 0, r), value=0)
    columns = torch.stack(
        [
            targets[p.dy : p.dy + height, r + p.dx : r + p.dx + width].flatten()
            for p in path_offsets(RADIUS)
        ]
    )
    return pixels.flatten().expand_as(columns).flatten(), columns.flatten(), affinity.flatten()


def sparse_transition(edge: Tensor) -> Any:
    """T as a CSR matrix of float32, transposed for products from the left."""
    from scipy.sparse import coo_matrix, identity

    row, column, value = (part.numpy() for part in links(edge))
    count = edge.numel()
    upper = coo_matrix((value, (row, column)), shape=(count, count))
    matrix = (upper + upper.T + identity(count, dtype=value.dtype)).tocsr()
    matrix.eliminate_zeros()
    return matrix.multiply(1 / matrix.sum(0)).T.tocsr()


def sparse_walk(cam: Tensor, edge: Tensor, transposed: Any) -> Tensor:
    """(cam (1 - edge)) T^256 of `cam (K,H,W)` by as many products."""
    x = (cam * (1 - edge)).flatten(1).numpy().T.copy()
    for _ in range(STEPS):
        x = transposed @ x
    return torch.from_numpy(x.T).reshape(cam.shape)


def dense_walk(cam: Tensor, edge: Tensor) -> Tensor:
    """The same by squaring the (N, N) matrix."""
    row, column, value = links(edge)
    transition = torch.eye(edge.numel(), device=edge.device)
    transition.index_put_((row, column), value, accumulate=True)
    transition.index_put_((column, row), value, accumulate=True)
    transition /= transition.sum(0)
    for _ in range(8):
        transition = transition @ transition
    return ((cam * (1 - edge)).flatten(1) @ transition).view(cam.shape)


def maps(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Class maps (K,H,W) and boundaries (H,W) of which most are open."""
    generator = torch.Generator().manual_seed(0)
    cam = torch.rand(count, height, width, generator=generator)
    edge = torch.rand(height, width, generator=generator) ** 4
    return cam.to(best_device()), edge.to(best_device())


def torch_sparse_walk(cam: Tensor, edge: Tensor) -> Tensor:
    """As `sparse_walk`, with the matrix built, on any device."""
    row, column, value = links(edge)
    count = edge.numel()
    own = torch.arange(count, device=edge.device)
    indices = torch.stack([torch.cat([row, column, own]), torch.cat([column, row, own])])
    values = torch.cat([value, value, torch.ones_like(own, dtype=value.dtype)])
    degree = torch.zeros_like(edge).flatten().index_add_(0, indices[0], values)
    matrix = torch.sparse_coo_tensor(indices, values / degree[indices[1]], (count, count))
    transposed = matrix.t().coalesce().to_sparse_csr()
    x = (cam * (1 - edge)).flatten(1).T.contiguous()
    for _ in range(STEPS):
        x = transposed @ x
    return x.T.reshape(cam.shape)


def _sparse(cam: Tensor, edge: Tensor) -> dict[str, Callable[[], object]]:
    if cam.device.type != "cpu":
        on_cpu = partial(random_walk, cam.cpu(), edge.cpu(), backend="native")
        return {
            "torch dense": partial(dense_walk, cam, edge),
            "torch sparse": partial(torch_sparse_walk, cam, edge),
            "native cpu": on_cpu,
        }
    built: list[Any] = []

    def products() -> Tensor:
        if not built:
            built.append(sparse_transition(edge))
        return sparse_walk(cam, edge, built[0])

    return {
        "scipy": lambda: sparse_walk(cam, edge, sparse_transition(edge)),
        "scipy products": products,
    }


def _work(cam: Tensor) -> Work:
    """Each product reads a row of A per displacement, reads x, y and the sum, writes y and the sum.

    For each neighbour of a pixel that is a difference, a product and a sum.
    """
    products = len(chebyshev_coefficients(STEPS, 1e-6)) - 1
    count, displacements = len(cam), len(path_offsets(RADIUS))
    pixels = cam[0].numel()
    return Work(
        bytes=4.0 * products * pixels * (displacements + 1 + 5 * count),
        flops=1.0 * products * pixels * count * (3 * 2 * displacements + 6),
    )


def cases() -> Iterator[Case]:
    device = best_device()
    cam, edge = maps(3, 94, 125)
    power = partial(random_walk, cam, edge, method="power")
    ours = providers(OP, partial(random_walk, cam, edge), device)
    ours |= {f"{name} power": call for name, call in providers(OP, power, device).items()}
    work, on_host = {"native": partial(_work, cam)}, frozenset({"native cpu"})
    yield Case("3x94x125", ours, _sparse(cam, edge), work, on_host)
    cam, edge = maps(3, 48, 64)
    ours = providers(OP, partial(random_walk, cam, edge), device)
    peers = _sparse(cam, edge) | {"torch dense": partial(dense_walk, cam, edge)}
    yield Case("3x48x64", ours, peers, {"native": partial(_work, cam)}, on_host)
    cam, edge = maps(3, 512, 512)
    ours = providers(OP, partial(random_walk, cam, edge), device)
    yield Case("3x512x512", ours, work={"native": partial(_work, cam)})
    images = 4 if device.type == "cpu" else 64
    cams, edges = zip(*(maps(3, 94, 125) for _ in range(images)), strict=True)
    batch = partial(random_walk_batch, cams, edges)
    one_by_one = partial(_one_by_one, cams, edges)
    ours = {f"{name} batch": call for name, call in providers(OP, batch, device).items()}
    yield Case(f"{images} of 3x94x125", ours | providers(OP, one_by_one, device))


def _one_by_one(cams: Sequence[Tensor], edges: Sequence[Tensor], *, backend: str) -> list[Tensor]:
    return [random_walk(c, e, backend=backend) for c, e in zip(cams, edges, strict=True)]
