"""Large results in the core's memory."""

import pytest
import torch

from c2am.ops import dense_crf, memory

LARGE = (3, 500, 700)  # bytes enough for the core to keep


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("shape", [(1,), (2, 3, 5), LARGE])
def test_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = memory.empty(shape, dtype)
    assert tensor.shape == shape
    assert tensor.dtype == dtype
    assert tensor.is_contiguous()
    assert not tensor._is_view()  # of which autograd would allow less
    tensor.fill_(7)
    assert (tensor == 7).all()


@pytest.mark.parametrize("shape", [(0,), (0, 3, 5), (2, 0)])
def test_no_elements(shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        tensor = memory.empty(shape, torch.float32)
    assert tensor.shape == shape
    assert tensor.device.type == "cpu"


def test_memory_serves_again_only_when_it_is_released() -> None:
    first, second = memory.empty(LARGE, torch.float32), memory.empty(LARGE, torch.float32)
    assert first.data_ptr() != second.data_ptr()
    view, address = first[1:], first.data_ptr()
    del first
    assert memory.empty(LARGE, torch.float32).data_ptr() != address  # the view holds it
    del view
    assert memory.empty(LARGE, torch.float32).data_ptr() == address


@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_filled_where_pytorch_fills() -> None:
    assert memory.empty(LARGE, torch.float32).isnan().all()


def test_results_stay_as_they_are() -> None:
    image = torch.randint(0, 256, (64, 300, 3), dtype=torch.uint8)
    unary = torch.randn(3, 64, 300)
    first = dense_crf(image, unary, backend="native")
    before = first.clone()
    second = dense_crf(image, -unary, backend="native")
    assert torch.equal(first, before)
    assert not torch.equal(first, second)
    assert torch.equal(first.share_memory_(), before)
