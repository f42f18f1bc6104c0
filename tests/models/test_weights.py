import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from c2am.models.weights import WeightsError, load_weights


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_round_trip(tmp_path, suffix):
    source, target = network(), network()
    path = tmp_path / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(source.state_dict(), path)
    load_weights(target, path)
    assert torch.equal(target[0].weight, source[0].weight)


@pytest.mark.parametrize("wrap", ["state_dict", "model", "module."])
def test_wrapped_checkpoints(tmp_path, wrap):
    source, target = network(), network()
    state = source.state_dict()
    if wrap == "module.":
        content = {wrap + name: tensor for name, tensor in state.items()}
    else:
        content = {wrap: state, "epoch": 3}
    torch.save(content, tmp_path / "weights.pth")
    load_weights(target, tmp_path / "weights.pth")
    assert torch.equal(target[0].weight, source[0].weight)


def test_the_error_lists_every_problem(tmp_path):
    state = network().state_dict()
    del state["0.bias"]
    state["0.weight"] = torch.zeros(4, 5, 1, 1)
    state["head.weight"] = torch.zeros(1)
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    target = network()
    before = target[0].weight.clone()
    with pytest.raises(WeightsError) as error:
        load_weights(target, path)
    message = str(error.value)
    assert str(path) in message
    assert "missing (1): 0.bias" in message
    assert "unexpected (1): head.weight" in message
    assert "0.weight (4, 5, 1, 1) instead of (4, 3, 1, 1)" in message
    assert torch.equal(target[0].weight, before)


def test_only_the_counter_of_a_batch_norm_may_be_absent(tmp_path):
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    save_file(state, tmp_path / "old.safetensors")
    load_weights(network(), tmp_path / "old.safetensors")
    del state["1.running_mean"]
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match=r"missing .1.: 1.running_mean"):
        load_weights(network(), tmp_path / "bad.safetensors")


class Harmful:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path, marker = tmp_path / "weights.pth", tmp_path / "ran"
    torch.save({"0.weight": Harmful(marker)}, path)
    with pytest.raises(WeightsError, match=r"weights.pth"):
        load_weights(network(), path)
    assert not marker.exists()


def test_unreadable_files_are_named(tmp_path):
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(WeightsError, match=name):
            load_weights(network(), tmp_path / name)
    with pytest.raises(WeightsError, match=r"absent.*no such file"):
        load_weights(network(), tmp_path / "absent.pth")
    (tmp_path / "weights.npz").touch()
    with pytest.raises(WeightsError, match=r"npz: expected a .safetensors"):
        load_weights(network(), tmp_path / "weights.npz")


def test_content_that_is_no_dictionary_of_tensors(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list.pth: expected a dictionary"):
        load_weights(network(), tmp_path / "list.pth")
    torch.save({"0.weight": torch.zeros(1), "epoch": 3}, tmp_path / "mixed.pth")
    with pytest.raises(WeightsError, match=r"mixed.pth.*epoch"):
        load_weights(network(), tmp_path / "mixed.pth")
