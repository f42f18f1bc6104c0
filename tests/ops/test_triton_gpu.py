"""The Triton kernels on a GPU at the shapes of the pipeline: tuned, and in many blocks."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from c2am import ops

pytestmark = pytest.mark.gpu

Place = Callable[[Tensor], Tensor]
"""Puts an input where it is computed on."""


def extract_cam(place: Place, backend: str) -> list[Tensor]:
    views = torch.rand(8, 2048, 24, 32).bfloat16().contiguous(memory_format=torch.channels_last)
    features = views.unflatten(0, (4, 2))
    present = torch.rand(4, 20) < 0.15
    arguments = (place(features), place(torch.randn(20, 2048)), present)
    coarse = ops.extract_cam(*arguments, (24, 32), backend=backend)
    return [coarse, ops.extract_cam(*arguments, (375, 500), backend=backend)]


def multi_scale_cam(place: Place, backend: str) -> list[Tensor]:
    maps = [place(torch.rand(12, *size)) for size in ((24, 32), (12, 16), (36, 47), (47, 63))]
    return list(ops.multi_scale_cam(maps, (375, 500), backend=backend))


def normalize_cam(place: Place, backend: str) -> list[Tensor]:
    return [ops.normalize_cam(place(100 * torch.rand(12, 375, 500)), backend=backend)]


def accumulate_global_cam(place: Place, backend: str) -> list[Tensor]:
    total, cam = place(torch.zeros(20, 128, 128).double()), place(torch.rand(48, 94, 125))
    count, index = place(torch.zeros(20, dtype=torch.int64)), place(torch.randint(0, 20, (48,)))
    ops.accumulate_global_cam(total, count, cam, index, normalize=True, backend=backend)
    return [total.to(cam.dtype), count.to(cam.dtype)]


def front_door_logits(place: Place, backend: str) -> list[Tensor]:
    logits, maps = place(torch.randn(16, 20)).requires_grad_(), place(torch.rand(20, 128, 128))
    scores = ops.front_door_logits(logits, maps, pooling="lse", backend=backend)
    return [scores.detach(), *torch.autograd.grad(scores.square().mean(), logits)]


def front_door_loss(place: Place, backend: str) -> list[Tensor]:
    logits, maps = place(torch.randn(16, 20)).requires_grad_(), place(torch.rand(20, 128, 128))
    labels = place((torch.rand(16, 20) > 0.9).float())
    loss = ops.front_door_loss(logits, labels, maps, pooling="lse", backend=backend)
    return [loss.detach(), *torch.autograd.grad(loss, logits)]


def path_affinity(place: Place, backend: str) -> list[Tensor]:
    edge = place(torch.rand(2, 1, 128, 128)).requires_grad_()
    affinity = ops.path_affinity(edge, radius=10, backend=backend)
    cotangent = place(torch.randn(affinity.shape))
    return [affinity.detach(), *torch.autograd.grad(affinity, edge, cotangent)]


def affinity_loss(place: Place, backend: str) -> list[Tensor]:
    edge, label = place(torch.rand(4, 1, 128, 128)).requires_grad_(), labels(4, place)
    losses = ops.affinity_loss(edge, label, radius=10, num_classes=2, backend=backend)
    return [*map(torch.Tensor.detach, losses), *torch.autograd.grad(losses.total, edge)]


def displacement_loss(place: Place, backend: str) -> list[Tensor]:
    field, label = place(torch.randn(4, 2, 128, 128)).requires_grad_(), labels(4, place)
    losses = ops.displacement_loss(field, label, radius=10, backend=backend)
    return [*map(torch.Tensor.detach, losses), *torch.autograd.grad(losses.total, field)]


def labels(batch: int, place: Place) -> Tensor:
    """Squares of three classes and of void."""
    coarse = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (batch, 16, 16))]
    return place(coarse.repeat_interleave(8, 1).repeat_interleave(8, 2))


OPS = [
    extract_cam,
    multi_scale_cam,
    normalize_cam,
    accumulate_global_cam,
    front_door_logits,
    front_door_loss,
    path_affinity,
    affinity_loss,
    displacement_loss,
]


def computed(
    call: Callable[[Place, str], list[Tensor]], place: Place, backend: str
) -> list[Tensor]:
    torch.manual_seed(0)
    return call(place, backend)


def in_float64(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("call", OPS)
def test_matches_the_cpu_in_float64(
    call: Callable[[Place, str], list[Tensor]],
    launched: Callable[[str, str], int],
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    results = computed(call, Tensor.cuda, "triton")
    assert launched(call.__name__, "triton") > 0
    plain = computed(call, Tensor.cuda, "reference")
    truth = computed(call, in_float64, "native")
    for values in zip(results, plain, truth, strict=True):
        within_error_budget(*values)


@pytest.mark.parametrize("call", OPS)
@pytest.mark.usefixtures("deterministic")
def test_gives_the_same_bits_in_every_run(call: Callable[[Place, str], list[Tensor]]) -> None:
    first = computed(call, Tensor.cuda, "triton")
    for _ in range(3):
        assert all(map(torch.equal, computed(call, Tensor.cuda, "triton"), first))


def test_on_another_stream() -> None:
    """Inputs are written on the stream that the kernels are launched on."""
    first = computed(affinity_loss, Tensor.cuda, "triton")
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(10**8)
        again = computed(affinity_loss, Tensor.cuda, "triton")
    torch.cuda.synchronize()
    assert all(map(torch.equal, again, first))


def test_the_host_waits_for_nothing_where_labels_are_on_the_cpu() -> None:
    features, weight = torch.rand(2, 2, 64, 5, 7).cuda(), torch.randn(20, 64).cuda()
    present = torch.rand(2, 20) < 0.5
    ops.extract_cam(features, weight, present, (5, 7))  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.extract_cam(features, weight, present, (5, 7))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_affinity_loss_takes_less_than_64_megabytes() -> None:
    """A training batch of 32 crops of 512 pixels, radius 10."""
    edge, label = torch.rand(32, 1, 128, 128, device="cuda"), labels(32, Tensor.cuda)

    def step() -> None:
        edge.requires_grad_().grad = None
        ops.affinity_loss(edge, label, radius=10, num_classes=2, backend="triton").total.backward()

    step()  # chooses the configuration
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    assert torch.cuda.max_memory_allocated() - before < 64e6
