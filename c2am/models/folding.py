"""Batch norms folded into the convolutions before them, for inference."""

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
    net(first.new_zeros(_EXAMPLE))
    for hook in hooks:
        hook.remove()
    return before
