"""Backends: which exist, which are taken, and what the errors say."""

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from c2am import ops
from c2am.ops import dispatch

TRITON_OPS = (
    "accumulate_global_cam",
    "affinity_loss",
    "displacement_loss",
    "extract_cam",
    "front_door_logits",
    "front_door_loss",
    "multi_scale_cam",
    "normalize_cam",
    "path_affinity",
)


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_of_the_package_loads_no_torch() -> None:
    run_python("import sys, c2am; assert 'torch' not in sys.modules")


def test_import_of_the_ops_loads_no_triton_and_no_core() -> None:
    loaded = "{'triton', 'c2am._core', 'torch._dynamo'} & set(sys.modules)"
    run_python(f"import sys, c2am; c2am.ops.normalize_cam; assert not {loaded}, {loaded}")


def test_package_has_no_other_attribute() -> None:
    run_python(
        "import c2am\ntry: c2am.nothing\nexcept AttributeError as e: assert 'nothing' in str(e)"
    )


@pytest.mark.parametrize("op", dispatch.ops())
@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
def test_reference_is_always_available(op: str, device: str) -> None:
    assert ops.available(op, device)["reference"] is None
    assert set(ops.available(op, device)) == {"reference", "native", "triton"}


@pytest.mark.parametrize("op", TRITON_OPS)
def test_auto_prefers_the_core_to_the_interpreter(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert ops.available(op, "cpu")["triton"] is None
    assert ops.backend_of(op, "cpu") == "native"


@pytest.mark.gpu
@pytest.mark.parametrize("op", TRITON_OPS)
def test_auto_takes_triton_on_cuda(op: str) -> None:
    assert ops.backend_of(op, "cuda") == "triton"


def test_the_gpu_of_the_tensors_is_made_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current one."""
    order: list[object] = []

    @contextmanager
    def device_of(tensor: torch.Tensor) -> Iterator[None]:
        order.append(tensor)
        yield
        order.append("left")

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    cam = torch.rand(1, 2, 2)
    ops.normalize_cam(cam)
    assert order[0].data_ptr() == cam.data_ptr()  # type: ignore[attr-defined]
    assert order[1:] == ["left"]


def test_triton_on_cpu_without_the_interpreter_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ops.BackendError, match="set TRITON_INTERPRET=1"):
        ops.normalize_cam(torch.rand(1, 2, 2), backend="triton")


def test_a_backend_that_the_op_lacks_says_what_it_has() -> None:
    with pytest.raises(ops.BackendError, match=r"dense_crf.*'triton'.*with: native"):
        dispatch.resolve("dense_crf", "triton", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what a machine without CUDA says")
def test_cuda_backends_without_a_device_say_so() -> None:
    reason = ops.available("normalize_cam", "cuda")["triton"]
    assert reason is not None
    assert "no CUDA device" in reason
    assert ops.backend_of("normalize_cam", "cuda") == "reference"


def test_missing_core_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch._missing_core.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = dispatch._missing_core("cpu")
    dispatch._missing_core.cache_clear()
    assert reason is not None
    assert "pip install ." in reason


def test_unknown_backend_lists_the_known() -> None:
    with pytest.raises(ValueError, match="'cudnn', expected one of auto, reference, native"):
        ops.normalize_cam(torch.rand(1, 2, 2), backend="cudnn")


def test_unknown_op_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'nothing'.*normalize_cam"):
        ops.backend_of("nothing", "cpu")


def test_an_op_needs_a_reference() -> None:
    with pytest.raises(ValueError, match="cuda needs 'reference'"):
        dispatch.register("nothing", cpu={"reference": len}, cuda={"triton": len})


def _refined(classes: int) -> float:
    image = torch.zeros(40, 50, 3, dtype=torch.uint8)
    return float(ops.dense_crf(image, torch.eye(40, 50).repeat(classes, 1, 1)).square().sum())


def test_ops_in_forked_processes() -> None:
    """Threads that the parent has used are not waited for by a process of a pool."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = _refined(3)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            result = pool.map_async(_refined, [3]).get(timeout=100)
    finally:
        torch.set_num_threads(before)
    assert result == [expected]
