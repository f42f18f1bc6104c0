"""Weights of published checkpoints under the names of the networks here.

A format is a list of rules from their names to ours, the first that matches the whole name
wins; see docs/weights.md.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from c2am.models.weights import WeightsError, listed, read_state_dict

Kind = Literal["classifier", "irn", "segmenter"]
# The new name, or None for a tensor that is not needed.
_Rule = tuple[str, Callable[[re.Match[str]], str | None]]


def convert_checkpoint(path: str | Path, kind: Kind | None = None) -> dict[str, Tensor]:
    """Read a published checkpoint and give its tensors the names that `load_weights` expects.

    Args:
        path: checkpoint of the network named by `kind`.
        kind: classifier (`resnet50_cam` of irn and of the works built on it), irn
            (`resnet50_irn`) or segmenter (DeepLabV2 of deeplab-pytorch, for the backbone
            resnet101_caffe); found from the names if None.

    Raises:
        WeightsError: unreadable, of no known format, or with names that the format lacks.
        ValueError: no such kind.
    """
    state = read_state_dict(path)
    kind = kind or detect_kind(state, str(path))
    if kind not in _RULES:
        raise ValueError(f"kind = {kind!r}: expected one of {', '.join(get_args(Kind))}")
    converted = _renamed(state, _RULES[kind], f"{path}, read as {kind}")
    if kind == "segmenter":
        # Their images are BGR, ours RGB.
        stem = "backbone.stem.conv1.weight"
        converted[stem] = converted[stem].flip(1).contiguous()
    return converted


def detect_kind(state: dict[str, Tensor], source: str) -> Kind:
    """The kind of a published checkpoint from its names; `source` is for the error."""
    if any(name.startswith("fc_edge") for name in state):
        return "irn"
    if "classifier.weight" in state:
        return "classifier"
    if any(re.match(r"((base|scale)\.)?layer1\.conv1\.conv\.", name) for name in state):
        return "segmenter"
    names = listed(sorted(state))
    raise WeightsError(f"{source}: a checkpoint of no known format, with the names {names}")


def _renamed(state: dict[str, Tensor], rules: list[_Rule], source: str) -> dict[str, Tensor]:
    converted, unknown = {}, []
    for name, tensor in state.items():
        match, rule = _first_match(name, rules)
        if match is None:
            unknown.append(name)
        elif new_name := rule(match):
            converted[new_name] = tensor
    if unknown:
        raise WeightsError(f"{source}: unknown names ({len(unknown)}): {listed(unknown)}")
    if "backbone.stem.conv1.weight" not in converted:
        raise WeightsError(f"{source}: it has no weights of the backbone")
    return converted


def _first_match(
    name: str, rules: list[_Rule]
) -> tuple[re.Match[str] | None, Callable[[re.Match[str]], str | None]]:
    for pattern, rule in rules:
        if match := re.fullmatch(pattern, name):
            return match, rule
    return None, _drop


def _drop(match: re.Match[str]) -> None:
    return None


def _to(template: str) -> Callable[[re.Match[str]], str]:
    return lambda match: match.expand(template)


def _to_index(template: str) -> Callable[[re.Match[str]], str]:
    """Like `_to`, with `{}` standing for the first group, a number counted from 1, from 0."""
    return lambda match: match.expand(template).format(int(match[1]) - 1)


def _residual_block(match: re.Match[str]) -> str:
    stage, block, unit, layer, rest = match.groups()
    place = f"backbone.layer{int(stage) - 1}.{int(block) - 1}"
    if unit in ("shortcut", "proj"):
        return f"{place}.downsample.{('conv', 'bn').index(layer)}.{rest}"
    return f"{place}.{layer}{('reduce', 'conv3x3', 'increase').index(unit) + 1}.{rest}"


# irn registers its layers several times over: as `resnet50`, as stages, and in lists.
_RESNET50: list[_Rule] = [
    (r"resnet50\.((conv1|bn1)\..*)", _to(r"backbone.stem.\1")),
    (r"resnet50\.(layer[1-4]\..*)", _to(r"backbone.\1")),
    (r"(resnet50\.fc|stage[1-5]|backbone\.[0-4])\..*", _drop),
]
_RULES: dict[str, list[_Rule]] = {
    "classifier": [
        *_RESNET50,
        (r"classifier\.weight", _to("head.weight")),
        (r"newly_added\..*", _drop),
    ],
    "irn": [
        *_RESNET50,
        (r"fc_edge([1-5])\.([01]\..*)", _to_index(r"edge.reduce.{}.\2")),
        (r"fc_edge6\.(.*)", _to(r"edge.fuse.\1")),
        (r"fc_dp([1-5])\.([01]\..*)", _to_index(r"displacement.reduce.{}.\2")),
        (r"fc_dp6\.([01]\..*)", _to(r"displacement.fuse8.\1")),
        (r"fc_dp7\.([013]\..*)", _to(r"displacement.fuse4.\1")),
        (r"fc_dp7\.4\.running_mean", _to("displacement_mean")),
        (r"(fc_dp7\.4|mean_shift|edge_layers|dp_layers)\..*", _drop),
        (r"path_indices\w*|ind_from|ind_to|disp_target", _drop),  # tables of its loss
    ],
    "segmenter": [
        (r"(?:base\.|scale\.)?layer1\.conv1\.conv\.(.*)", _to(r"backbone.stem.conv1.\1")),
        (r"(?:base\.|scale\.)?layer1\.conv1\.bn\.(.*)", _to(r"backbone.stem.bn1.\1")),
        (
            r"(?:base\.|scale\.)?layer([2-5])\.block(\d+)"
            r"\.(reduce|conv3x3|increase|shortcut|proj)\.(conv|bn)\.(.*)",
            _residual_block,
        ),
        (r"(?:base\.|scale\.)?aspp\.(?:stages\.)?c([0-9])\.(.*)", _to(r"aspp.\1.\2")),
        (r"(?:base\.|scale\.)?fc\..*", _drop),  # head of the DeepLabV1 that is often started from
    ],
}
