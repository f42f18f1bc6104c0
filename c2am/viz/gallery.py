"""The gallery of Figure 4: image, class maps, pseudo masks and truth, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F

from c2am.data.dataset import Dataset
from c2am.data.images import read_image, read_mask
from c2am.viz.overlays import Rgb, fit, overlay_cam, overlay_mask
from c2am.viz.paper import method_title
from c2am.viz.picture import Picture, embed
from c2am.workspace import Workspace, read_tensors

SIDE = 260  # pixels, the longer side of a picture of the gallery


@dataclass(frozen=True)
class GalleryRow:
    """One image: its id, its labels, and a picture (or None) for each column."""

    image_id: str
    labels: list[str]
    pictures: list[Picture | None]


@dataclass(frozen=True)
class Gallery:
    """Column titles and one row per image."""

    columns: list[str]
    rows: list[GalleryRow]


def choose_images(dataset: Dataset, ids: Sequence[str], count: int) -> list[str]:
    """`count` images of `ids`, spread over the classes; the same every time.

    Goes round the classes; each takes its next image, in list order, that none has taken.
    """
    labels = [dataset.labels(image_id) for image_id in ids]
    queues = [
        [image_id for image_id, present in zip(ids, labels, strict=True) if present[index]]
        for index in range(len(dataset.classes))
    ]
    chosen: list[str] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


def build_gallery(
    workspace: Workspace, dataset: Dataset, methods: Sequence[str], ids: Sequence[str]
) -> Gallery:
    """Draws the rows of `ids`; columns that no image has a file for are left out."""
    columns = ["Image"]
    columns += [f"{method_title(method)}: class map" for method in methods]
    columns += [f"{method_title(method)}: pseudo mask" for method in methods]
    columns += ["Ground truth"]
    rows = [_row(workspace, dataset, methods, image_id) for image_id in ids]
    used = [any(row.pictures[index] for row in rows) for index in range(len(columns))]
    return Gallery(
        columns=[name for name, keep in zip(columns, used, strict=True) if keep],
        rows=[
            GalleryRow(
                row.image_id,
                row.labels,
                [picture for picture, keep in zip(row.pictures, used, strict=True) if keep],
            )
            for row in rows
        ],
    )


def _row(
    workspace: Workspace, dataset: Dataset, methods: Sequence[str], image_id: str
) -> GalleryRow:
    image = read_image(dataset.image_path(image_id))
    present = dataset.labels(image_id)
    labels = [name for name, here in zip(dataset.classes, present, strict=True) if here]
    what = f"{image_id} ({', '.join(labels) or 'no label'})"
    pictures: list[Picture | None] = [embed(fit(image, SIDE), f"Image {what}")]
    for method in methods:
        path = workspace.folder("cam", method) / f"{image_id}.safetensors"
        pictures.append(_cam_picture(path, image, f"{method_title(method)} of {what}"))
    for method in methods:
        path = workspace.folder("pseudo_masks", method) / f"{image_id}.png"
        alt = f"Pseudo mask of {method_title(method)} of {what}"
        pictures.append(_mask_picture(path, image, alt))
    truth = dataset.mask_path(image_id)
    pictures.append(_mask_picture(truth, image, f"Ground truth of {what}") if truth else None)
    return GalleryRow(image_id, labels, pictures)


def _cam_picture(path: Path, image: Rgb, alt: str) -> Picture | None:
    if not path.exists():
        return None
    tensors = read_tensors(path)
    kind = "high_res" if "high_res" in tensors else "strided"  # with irn_labels.stream
    maps = tensors[kind].float()  # (K,H,W) or (K,h,w)
    strongest = maps.amax(0) if len(maps) else maps.new_zeros(image.shape[:2])
    if kind == "strided":
        strongest = F.interpolate(strongest[None, None], image.shape[:2], mode="bilinear")[0, 0]
    return embed(fit(overlay_cam(image, strongest.numpy()), SIDE), alt)


def _mask_picture(path: Path, image: Rgb, alt: str) -> Picture | None:
    if not path.exists():
        return None
    return embed(fit(overlay_mask(image, read_mask(path)), SIDE), alt)
