"""A dataset of the sizes of PASCAL VOC to run the stages on."""

from pathlib import Path

import torch
from PIL import Image

from benchmarks.images import drawn

SIZES = ((375, 500), (500, 375))
"""(H, W) of most of VOC's images."""
CLASSES = 20


def write_dataset(folder: Path, count: int) -> int:
    """Write `count` JPEGs and `labels.csv` for `FolderDataset`; returns their mean bytes."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    pixels = {size: drawn(*size, torch.device("cpu")) for size in SIZES}
    lines, total = ["image_id,labels"], 0
    for index in range(count):
        image = pixels[SIZES[index % 3 == 2]].roll(int(torch.randint(200, (), generator=generator)))
        path = folder / f"image_{index:04}.jpg"
        Image.fromarray(image.numpy()).save(path, quality=90)
        total += path.stat().st_size
        # Every class occurs, and an image has 1.5 classes, as VOC's do.
        classes = {index % CLASSES} | ({(7 * index + 3) % CLASSES} if index % 2 else set())
        lines.append(f"{path.stem},{' '.join(f'c{z:02}' for z in sorted(classes))}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return total // max(count, 1)
