"""Loops that other code runs to train the classifier: same network, loss, batch and optimiser."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from c2am import precision
from c2am.config import ClassifierConfig
from c2am.data.loader import TrainLoader

BACKBONES = ("resnet18", "resnet50", "resnet101")


class PlainClassifier(nn.Module):
    """torchvision's ResNet with the last stride taken out, as in the published code."""

    def __init__(self, config: ClassifierConfig, classes: int) -> None:
        super().__init__()
        net = getattr(torchvision.models, config.backbone)(weights=None)
        if config.output_stride == 16:
            for module in net.layer4.modules():
                if isinstance(module, nn.Conv2d):
                    module.stride = (1, 1)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool).requires_grad_(False)
        self.layers = nn.Sequential(net.layer1, net.layer2, net.layer3, net.layer4)
        self.head = nn.Conv2d(net.fc.in_features, classes, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layers(self.stem(images).detach())
        return self.head(F.adaptive_avg_pool2d(features, 1)).flatten(1)


class _Images(Dataset):
    """Crops made by `crop(path, config)` and their labels."""

    def __init__(self, loader: TrainLoader, crop: Callable[[Path, Any, Any], Tensor]) -> None:
        self.loader, self.crop = loader, crop

    def __len__(self) -> int:
        return len(self.loader.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_id, dataset = self.loader.ids[index], self.loader.dataset
        crop = self.crop(
            dataset.image_path(image_id), self.loader.config, self.loader.normalization
        )
        return crop, torch.from_numpy(dataset.labels(image_id)).float()


def pil_crop(path: Path, config: Any, normalization: Any) -> Tensor:
    """Resize, mirror, normalise and crop with Pillow and NumPy, one image at a time."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = random.uniform(*config.resize_long) / max(image.size)
    width, height = (round(side * scale) for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    if random.random() < 0.5:
        pixels = np.fliplr(pixels)
    values = (pixels - np.float32(normalization.mean)) / np.float32(normalization.std)
    crop = np.zeros((config.crop, config.crop, 3), np.float32)
    target, source = zip(*(_place(side, config.crop) for side in values.shape[:2]), strict=True)
    crop[target] = values[source]
    return torch.from_numpy(crop.transpose(2, 0, 1).copy())


def _place(side: int, crop: int) -> tuple[slice, slice]:
    """Where a side goes in the crop, and which part of it."""
    start = random.randint(0, abs(side - crop))
    length = min(side, crop)
    if side < crop:
        return slice(start, start + length), slice(0, length)
    return slice(0, length), slice(start, start + length)


def v2_crop(path: Path, config: Any, normalization: Any) -> Tensor:
    """The same with torchvision's decoder and transforms v2, on uint8 tensors."""
    mode = torchvision.io.ImageReadMode.RGB
    image = torchvision.io.decode_image(torchvision.io.read_file(str(path)), mode)
    long = max(image.shape[1:])
    scale = random.uniform(*config.resize_long) / long
    size = [round(side * scale) for side in image.shape[1:]]
    mean = [value / 255 for value in normalization.mean]
    std = [value / 255 for value in normalization.std]
    transform = v2.Compose(
        [
            v2.Resize(size, v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(config.crop, pad_if_needed=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    return transform(image)


def eager(task: Any, loader: TrainLoader, config: ClassifierConfig, **kept: Any) -> None:
    """The loop of the published code: DataLoader with Pillow, float32, plain layout."""
    _train(task, loader, config, pil_crop, fast=False, **kept)


def torchvision_v2(task: Any, loader: TrainLoader, config: ClassifierConfig, **kept: Any) -> None:
    """What one writes today: transforms v2, channels last, autocast, fused SGD."""
    _train(task, loader, config, v2_crop, fast=True, **kept)


def _train(
    task: Any,
    loader: TrainLoader,
    config: ClassifierConfig,
    crop: Callable[[Path, Any, Any], Tensor],
    *,
    fast: bool,
    events: Any,
    device: torch.device,
    **kept: Any,
) -> None:
    layout = torch.channels_last if fast else torch.contiguous_format
    net = PlainClassifier(config, len(loader.dataset.classes))
    net.to(device, memory_format=layout)  # type: ignore[call-overload]
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(
        trained, config.lr, config.momentum, weight_decay=config.weight_decay, fused=fast
    )
    for step, (images, labels) in enumerate(_endless(loader, config, crop, device), 1):
        images = images.to(device, memory_format=layout, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        optimizer.zero_grad()
        with precision.autocast(device, "auto" if fast else "float32"):
            logits = net(images)
        F.multilabel_soft_margin_loss(logits.float(), labels).backward()
        optimizer.step()
        if step % config.log_every == 0:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            events.log(step, {})


def _endless(
    loader: TrainLoader,
    config: ClassifierConfig,
    crop: Callable[[Path, Any, Any], Tensor],
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    batches = DataLoader(
        _Images(loader, crop),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=loader.threads,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    while True:
        yield from batches
