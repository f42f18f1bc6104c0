"""The host never waits for a GPU; what a GPU makes is what the CPU makes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._dynamo.utils import counters
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from c2am import trainer
from c2am.data import read_mask
from c2am.stages import cam, classifier, irn, segmenter
from c2am.stages.loaders import inference_loader, train_loader
from c2am.stages.multi_scale import both_maps, trained_classifier
from c2am.workspace import read_tensors, write_mask

GPU = torch.device("cuda", 0)
STAGES = [classifier, irn, segmenter]


class ReadsNothing(TorchDispatchMode):
    """An operation whose result or size is read from a tensor's values is an error."""

    READ = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in self.READ, func
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting() -> Iterator[None]:
    """An operation of torch that waits for the GPU is an error; waiting for an event is not."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def context_of(make_context, stage):
    """With masks to train on."""
    name = stage.__name__.rpartition(".")[2]
    context = make_context(name, None if stage is classifier else "cam")
    for image_id in context.dataset.ids("train") if stage is not classifier else ():
        mask = read_mask(context.dataset.mask_path(image_id))
        for folder in ("irn_labels", "pseudo_masks"):
            write_mask(context.own(folder) / f"{image_id}.png", mask)
    return context, getattr(context.config, name)


@pytest.mark.parametrize("stage", STAGES)
def test_no_step_of_a_training_reads_a_value(make_context, monkeypatch, stage):
    """As seen on a CPU; the kernels of our own operations are not looked into."""
    context, _ = context_of(make_context, stage)
    step, steps = trainer._Loop._step, []

    def checked(loop, number):
        with ReadsNothing():
            step(loop, number)
        steps.append(number)

    monkeypatch.setattr(trainer._Loop, "_step", checked)
    stage.run(context)
    assert steps == [0, 1]


@pytest.mark.gpu
@pytest.mark.parametrize("stage", STAGES)
def test_no_step_of_a_training_waits_for_the_gpu(make_context, monkeypatch, stage):
    """From the second step on: the first one compiles and tunes kernels."""
    context, section = context_of(make_context, stage)
    context.device = GPU
    section.steps, section.log_every, section.checkpoint_every, section.compile = 9, 2, 4, False
    step, after, strict = trainer._Loop._step, trainer._Loop._after, []

    def checked(loop, number, *rest):
        if number == 0:
            step(loop, number)
            return
        with no_waiting():
            step(loop, number)
        strict.append(number)

    def checked_after(loop, steps, *rest):
        if steps % section.checkpoint_every == 0 or steps == section.steps:
            after(loop, steps, *rest)
            return
        with no_waiting():
            after(loop, steps, *rest)

    monkeypatch.setattr(trainer._Loop, "_step", checked)
    monkeypatch.setattr(trainer._Loop, "_after", checked_after)
    stage.run(context)
    assert strict == list(range(1, 9))
    assert read_tensors(context.folder / "weights.safetensors")


@pytest.mark.gpu
def test_class_maps_wait_for_nothing_and_are_those_of_the_cpu(make_context, write_network):
    """The second time, when kernels are tuned; a batch of known size. In float32."""
    context = make_context("cam", "cam")
    write_network(context, "classifier")
    context.config.classifier.compile = False
    maps = {}
    for device in (torch.device("cpu"), GPU):
        context.device = device
        net = trained_classifier(context, context.classifier_weights(), context.method)
        loader = inference_loader(
            context, context.dataset.ids("train"), net.backbone.normalization, flip=True
        )
        batch = next(iter(loader))
        with torch.inference_mode():
            maps[device] = both_maps(context, context.method, net, batch)
            if device == GPU:
                with no_waiting():
                    maps[device] = both_maps(context, context.method, net, batch)
    for own, other in zip(maps[GPU], maps[torch.device("cpu")], strict=True):
        # nvJPEG and TF32 differ from the CPU by a grey level and a thousandth.
        assert_close(own.cpu(), other, rtol=0, atol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_maps_are_those_of_the_eager_network(make_context, write_network, precision):
    """Of all images, written by the stage; one graph for all sizes, and one for single images."""
    context = make_context("cam", "cam")
    write_network(context, "classifier")
    context.device = GPU
    context.config.classifier.precision = precision
    found = {}
    for compiled in (False, None):  # None: the default
        torch.compiler.reset()
        counters.clear()
        context.config.classifier.compile = compiled
        ids = context.dataset.ids("train")
        cam.write_class_maps(context, ids)
        assert (1 if compiled is None else 0) <= counters["stats"]["unique_graphs"] <= 2
        paths = [context.folder / f"{image_id}.safetensors" for image_id in ids]
        found[compiled] = [read_tensors(path) for path in paths]
        for path in paths:
            path.unlink()
    for own, other in zip(found[None], found[False], strict=True):
        for kind in ("strided", "high_res"):
            atol = 2e-3 if precision == "float32" else 0.05
            assert_close(own[kind], other[kind], rtol=0, atol=atol)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune-no-cudagraphs"])
def test_every_mode_of_the_compiler_trains(make_context, mode):
    context = make_context("classifier")
    context.device = GPU
    config = context.config.classifier
    config.compile_mode, config.steps = mode, 4
    losses = []
    for config.compile in (None, False):
        metrics = classifier.run(context)
        losses.append(metrics["loss"])
        for path in context.folder.iterdir():
            path.unlink()
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


@pytest.mark.gpu
def test_batches_are_made_on_the_gpu(make_context):
    """Decoded and cropped there, by the pipeline that runs on the CPU too."""
    context = make_context("classifier")
    batches = {}
    for device in (torch.device("cpu"), GPU):
        context.device = device
        config = context.config.classifier
        normalization = classifier.build_classifier(config, 8).backbone.normalization
        batches[device] = next(train_loader(context, config, normalization).batches(0))
    own, other = batches[GPU], batches[torch.device("cpu")]
    assert own.images.device == own.labels.device == GPU
    assert own.ids == other.ids
    assert torch.equal(own.labels.cpu(), other.labels)
    # A grey level or two; at edges of the crop a pixel may differ by more.
    assert (own.images.cpu() - other.images).abs().mean() < 0.03
