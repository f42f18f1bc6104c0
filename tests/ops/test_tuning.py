"""Configurations of the tuned kernels: any gives the same result, and the choice spoils none."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import triton
from torch import Tensor
from torch.testing import assert_close

from c2am import ops
from c2am.kernels import (
    accumulate_global_cam,
    affinity_loss,
    displacement_loss,
    extract_cam,
    front_door_logits,
    front_door_loss,
    multi_scale_cam,
    tuning,
)

Results = tuple[Tensor, ...]


def class_maps(device: torch.device) -> Results:
    features, weight = torch.randn(2, 2, 70, 5, 9), torch.randn(3, 70)
    present = torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    arguments = [t.to(device) for t in (features, weight, present)]
    out = torch.ones(3, 7, 70, device=device)
    added = ops.extract_cam(*arguments, (7, 70), out=out, backend="triton")
    return added, ops.extract_cam(*arguments, (5, 9), backend="triton")


def merged_maps(device: torch.device) -> Results:
    maps = [torch.rand(2, 3, 4, device=device), torch.rand(2, 6, 7, device=device)]
    return tuple(ops.multi_scale_cam(maps, (17, 70), backend="triton"))


def global_cam(device: torch.device) -> Results:
    total = torch.ones(2, 9, 9, dtype=torch.float64, device=device)
    count = torch.ones(2, dtype=torch.int64, device=device)
    cam = torch.rand(3, 4, 5, device=device)
    index = torch.tensor([0, 1, 1], device=device)
    ops.accumulate_global_cam(total, count, cam, index, normalize=True, backend="triton")
    return total, count


def pair_losses(device: torch.device) -> Results:
    edge = torch.rand(1, 1, 9, 14, device=device, requires_grad=True)
    label = torch.randint(0, 3, (1, 9, 14), device=device)
    losses = ops.affinity_loss(edge, label, radius=3, num_classes=2, backend="triton")
    losses.total.backward()
    assert edge.grad is not None
    return (*losses, edge.grad)


def displacement_losses(device: torch.device) -> Results:
    field = torch.randn(1, 2, 9, 14, device=device, requires_grad=True)
    label = torch.randint(0, 3, (1, 9, 14), device=device)
    losses = ops.displacement_loss(field, label, radius=3, backend="triton")
    losses.total.backward()
    assert field.grad is not None
    return (*losses, field.grad)


def front_door(device: torch.device) -> Results:
    logits = torch.randn(2, 3, device=device)
    maps, labels = torch.rand(3, 9, 9, device=device), torch.ones(2, 3, device=device)
    scores = ops.front_door_logits(logits, maps, pooling="lse", backend="triton")
    return scores, ops.front_door_loss(logits, labels, maps, pooling="lse", backend="triton")


CALLS = [
    (extract_cam._class_maps, class_maps),
    (extract_cam._resize, class_maps),
    (multi_scale_cam._sum_scales, merged_maps),
    (accumulate_global_cam._accumulate, global_cam),
    (affinity_loss._count_pairs, pair_losses),
    (displacement_loss._visit_pairs, displacement_losses),
    (front_door_logits._pool, front_door),
    (front_door_loss._cross_entropy, front_door),
]
CASES = pytest.mark.parametrize(
    ("kernel", "call"), CALLS, ids=[kernel.kernel.__name__ for kernel, _ in CALLS]
)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuning.Tuned], list[Callable[[], None]]]:
    """`timed(kernel)` has it choose as on a GPU; the list gets what is timed, the last one wins."""
    monkeypatch.setattr(tuning, "interpreted", lambda: False)
    monkeypatch.setattr(tuning, "LEAST_PROGRAMS", 1)
    for kernel, _ in CALLS:
        monkeypatch.setattr(kernel.tuner, "configs", kernel.configs[:1])

    def prepare(kernel: tuning.Tuned) -> list[Callable[[], None]]:
        calls: list[Callable[[], None]] = []

        def bench(call: Callable[[], None], quantiles: object) -> list[float]:
            calls.append(call)
            call()
            call()
            return [-float(len(calls))] * 3

        monkeypatch.setattr(kernel.tuner, "configs", kernel.configs)
        monkeypatch.setattr(kernel.tuner, "cache", {})
        monkeypatch.setattr(kernel.tuner, "cache_results", False)
        monkeypatch.setitem(kernel.tuner.__dict__, "do_bench", bench)
        return calls

    return prepare


@CASES
def test_every_configuration_gives_the_same(
    kernel: tuning.Tuned,
    call: Callable[[torch.device], Results],
    triton_device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def results() -> Results:
        torch.manual_seed(1)
        return call(triton_device)

    first = results()
    for config in kernel.configs[1:]:
        if not triton.knobs.runtime.interpret or config.kwargs:  # it knows no warps
            monkeypatch.setattr(kernel, "configs", [config])
            for value, same in zip(results(), first, strict=True):
                assert_close(value, same, rtol=1e-5, atol=1e-5)  # sums of 70, in any order


@CASES
def test_the_choice_leaves_no_trace(
    kernel: tuning.Tuned,
    call: Callable[[torch.device], Results],
    triton_device: torch.device,
    timed: Callable[[tuning.Tuned], list[Callable[[], None]]],
) -> None:
    """Kernels that add to their output are timed on it: many times, with the result of one."""
    torch.manual_seed(1)
    first = call(triton_device)
    calls = timed(kernel)
    torch.manual_seed(1)
    for value, same in zip(call(triton_device), first, strict=True):
        assert_close(value, same, rtol=1e-5, atol=1e-5)  # sums of 70, in any order
    assert len(calls) == len(kernel.configs)
    call(triton_device)
    assert len(calls) == len(kernel.configs), "what is chosen is kept"


def test_small_launches_are_not_measured(
    triton_device: torch.device,
    timed: Callable[[tuning.Tuned], list[Callable[[], None]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = timed(multi_scale_cam._sum_scales)
    monkeypatch.setattr(tuning, "LEAST_PROGRAMS", 1000)
    merged_maps(triton_device)
    assert not calls


@pytest.mark.gpu
def test_the_choice_is_kept_for_other_processes(tmp_path: Path) -> None:
    script = (
        "import torch; from c2am import ops\n"
        "maps = [torch.rand(64, 24, 32, device='cuda')]\n"
        "ops.multi_scale_cam(maps, (375, 500), backend='triton')"
    )
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_PRINT_AUTOTUNING": "1"}
    command = [sys.executable, "-c", script]
    printed = [
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert "autotuning for function _sum_scales" in printed[0]
    assert "autotuning for function" not in printed[1]
