"""What `benchmarks` times of a stage is what the pipeline runs."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from benchmarks.stages.providers import providers
from benchmarks.stages.recorder import EnoughError, Recorder
from c2am import compiling
from c2am.stages import cam


def test_the_network_that_makes_class_maps_is_timed_as_it_is_compiled(
    make_context, write_network, monkeypatch
):
    for replaced in ("inference_batches", "both_maps", "save_batch"):
        monkeypatch.setattr(cam, replaced, getattr(cam, replaced))
    eager = partial(compiling.compile_for_inference, backend="eager")
    monkeypatch.setattr(compiling, "compile_for_inference", eager)
    context = make_context("cam", "cam")
    write_network(context, "classifier")
    context.config.classifier.compile = True
    torch.compiler.reset()
    counters.clear()
    recorder = Recorder(0, marks=1)
    with pytest.raises(EnoughError):
        providers("cam", "resnet18")["network"](context, recorder)
    assert recorder.gflop_per_image > 0
    assert counters["stats"]["unique_graphs"] > 0
