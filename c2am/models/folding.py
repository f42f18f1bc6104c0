"""Batch norms folded into the convolutions before them: for good, or while a network is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from c2am.models.backbone import Backbone

_EXAMPLE = (1, 3, 64, 64)


@torch.no_grad()
def fold_batch_norms(net: Backbone) -> None:
    """Fold each batch norm of a backbone in evaluation mode into the convolution before it.

    w' = w g / sqrt(var + eps), b' = b - mean g / sqrt(var + eps): one pass over the features less
    for each. The features stay the same up to rounding; the network cannot be trained any more.

    Raises:
        ValueError: a batch norm is in training mode, or its input is not that of a convolution.
    """
    before = _convolutions_before(net)
    norms = {n: module for n, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, norm in norms.items():
        if norm.training or norm not in before:
            problem = "is in training mode" if norm.training else "follows no convolution"
            raise ValueError(f"fold_batch_norms: {name} {problem}")
        convolution = before[norm]
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            mean,
            variance,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        net.set_submodule(name, nn.Identity())


@contextmanager
def folded_while_training(net: nn.Module) -> Iterator[None]:
    """Let the convolutions of backbones do the work of the frozen batch norms after them meanwhile.

    As `fold_batch_norms`, but in each forward pass anew, so that w' follows the w that is trained:
    the gradient of w is that of w' times g / sqrt(var + eps). It saves a pass over the features
    forward and one backward for each batch norm, and keeping its input for the latter. Parameters,
    buffers and their names stay as they are. Batch norms that are trained are left alone.
    """
    pairs = [
        (norm, convolution)
        for backbone in net.modules()
        if isinstance(backbone, Backbone)
        for norm, convolution in _convolutions_before(backbone).items()
        if isinstance(norm, nn.BatchNorm2d) and _is_frozen(norm)
    ]
    for norm, convolution in pairs:
        object.__setattr__(convolution, "_folded", norm)  # not as a module of its own
        convolution._conv_forward = MethodType(_folded_forward, convolution)  # type: ignore[method-assign]
        norm.forward = MethodType(_identity, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm, convolution in pairs:
            for module, name in (
                (convolution, "_folded"),
                (convolution, "_conv_forward"),
                (norm, "forward"),
            ):
                del module.__dict__[name]


def _is_frozen(norm: nn.BatchNorm2d) -> bool:
    trained = any(parameter.requires_grad for parameter in norm.parameters())
    return not norm.training and not trained and norm.running_var is not None


def _folded_forward(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    norm: nn.BatchNorm2d = conv._folded  # type: ignore[assignment]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    return nn.Conv2d._conv_forward(
        conv, x, weight * scale[:, None, None, None], norm.bias - mean * scale
    )


def _identity(norm: nn.Module, x: Tensor) -> Tensor:
    return x


def _convolutions_before(net: Backbone) -> dict[nn.Module, nn.Conv2d]:
    """The convolution whose output each batch norm gets, as seen in a forward pass."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # holds the tensors, so that ids stay theirs
    before: dict[nn.Module, nn.Conv2d] = {}

    def note_output(module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        made[id(output)] = module, output

    def note_input(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if id(inputs[0]) in made:
            before[module] = made[id(inputs[0])][0]

    notes = {nn.Conv2d: note_output, nn.BatchNorm2d: note_input}
    hooks = [
        module.register_forward_hook(note)
        for kind, note in notes.items()
        for module in net.modules()
        if isinstance(module, kind)
    ]
    first = next(net.parameters())
    training = net.training
    with torch.no_grad():
        net.eval()(first.new_zeros(_EXAMPLE))  # of which no batch norm learns
    net.train(training)
    for hook in hooks:
        hook.remove()
    return before
