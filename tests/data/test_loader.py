"""The loaders on well-formed files, compared with Pillow."""

from itertools import islice

import numpy as np
import pytest
import torch
from data.files import Files, blocks
from PIL import Image

from c2am.config import TrainConfig
from c2am.data import DataError, read_image
from c2am.data.loader import InferenceLoader, Normalization, TrainBatch, TrainLoader
from c2am.data.sampling import crop_anchor, resized, sample

CPU = torch.device("cpu")
GREY_LEVELS = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
TOLERANCE = 1.01  # grey levels: DALI and Pillow round differently


def levels_mask(height: int, width: int) -> np.ndarray:
    """Values 0..5, in steps of one across edges that look alike in no mirror image."""
    y, x = np.mgrid[:height, :width]
    return np.minimum((y // 9) // 2 + x // 11, 5).astype(np.uint8)


def encoding(mask: np.ndarray) -> np.ndarray:
    """An image whose grey level 20 + 40 m says which value m the mask has there."""
    return np.repeat((20 + 40 * mask)[..., None], 3, axis=2).astype(np.uint8)


def train_loader(files: Files, config: TrainConfig, **options) -> TrainLoader:
    defaults = {"normalization": GREY_LEVELS, "seed": 5, "device": CPU, "masks": files.mask_path}
    return TrainLoader(files, files.ids(""), config, **(defaults | options))


def take(loader: TrainLoader, count: int, start: int = 0) -> list[TrainBatch]:
    return list(islice(loader.batches(start), count))


def assert_equal(one: TrainBatch, other: TrainBatch) -> None:
    assert one.ids == other.ids
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.masks, other.masks)


@pytest.fixture
def seven(files, rng) -> Files:
    """Seven images of different sizes with masks."""
    for number in range(7):
        size = (20 + 3 * number, 37 - 2 * number)
        mask = rng.integers(0, 4, size, dtype=np.uint8)
        files.add(f"{'cds'[number % 3]}{number}.png", blocks(rng, *size), mask)
    return files


CONFIG = TrainConfig(batch_size=5, crop=24, scale=(0.5, 1.5))


def test_a_batch_is_what_it_says(seven):
    batch = take(train_loader(seven, CONFIG), 1)[0]
    assert (batch.images.shape, batch.images.dtype) == ((5, 3, 24, 24), torch.float32)
    assert (batch.masks.shape, batch.masks.dtype) == ((5, 24, 24), torch.uint8)
    assert batch.labels.dtype == torch.float32
    expected = np.stack([seven.labels(image_id) for image_id in batch.ids])
    assert torch.equal(batch.labels, torch.from_numpy(expected).float())
    assert train_loader(seven, CONFIG).steps_per_epoch == 7 / 5


def test_it_goes_on_where_it_stopped_bit_for_bit(seven):
    whole = take(train_loader(seven, CONFIG), 6)
    resumed = take(train_loader(seven, CONFIG, threads=1), 3, start=3)
    for one, other in zip(whole[3:], resumed, strict=True):
        assert_equal(one, other)
    assert not torch.equal(whole[0].images, whole[3].images)


def test_another_seed_gives_other_crops(seven):
    one, other = (take(train_loader(seven, CONFIG, seed=seed), 1)[0] for seed in (5, 6))
    assert not torch.equal(one.images, other.images)


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (3, 1), (5, 1), (2, 2)])
def test_the_ranks_together_see_the_batches_of_one_process(seven, world_size, accumulate):
    config = TrainConfig(batch_size=5 * accumulate, accumulate=accumulate, crop=24)
    whole = take(train_loader(seven, config), 2)
    ranks = [
        take(train_loader(seven, config, rank=rank, world_size=world_size), 2)
        for rank in range(world_size)
    ]
    for number, expected in enumerate(whole):
        parts = [batches[number] for batches in ranks]
        joined = TrainBatch(
            torch.cat([part.images for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.cat([part.masks for part in parts]),
            [image_id for part in parts for image_id in part.ids],
        )
        assert_equal(joined, expected)


def test_more_ranks_than_images_of_a_micro_batch_are_refused(seven):
    with pytest.raises(ValueError, match="6 ranks share micro-batches of 5"):
        train_loader(seven, CONFIG, rank=0, world_size=6)


def test_fewer_images_than_the_batch_size_wrap_over_epochs(files, rng):
    names = [files.add(f"c{number}.png", blocks(rng, 20, 20)) for number in range(3)]
    batch = take(train_loader(files, TrainConfig(batch_size=9, crop=16), masks=None), 1)[0]
    assert batch.masks is None
    for epoch in range(3):
        assert sorted(batch.ids[3 * epoch : 3 * epoch + 3]) == names


def test_a_file_that_disappears_is_named(seven):
    """An image, or a mask, that is there when the training begins and not in its second epoch."""
    for path in (seven.image_path("c0.png"), seven.mask_path("d1.png")):
        batches = train_loader(seven, CONFIG).batches(0)
        next(batches)
        moved = path.rename(path.with_suffix(".away"))
        with pytest.raises(DataError, match=rf"{path.name}: no such file"):
            list(islice(batches, 7))
        moved.rename(path)


def test_an_empty_list_is_refused(files):
    with pytest.raises(DataError, match="training list is empty"):
        train_loader(files, CONFIG)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(batch_size=16, crop=48, flip=True),
        TrainConfig(batch_size=16, crop=48, resize_long=(80, 200)),
        TrainConfig(batch_size=16, crop=100, scale=(0.7, 1.6)),
    ],
    ids=["flip", "resize_long", "scale_and_pad"],
)
def test_image_and_mask_stay_aligned(files, config):
    for number, size in enumerate([(75, 70), (60, 90)]):
        mask = levels_mask(*size)
        files.add(f"c{number}.png", encoding(mask), mask)
    batch = take(train_loader(files, config), 1)[0]
    outside = batch.masks == 255
    assert torch.equal(outside, batch.images[:, 0] == 0)
    read = ((batch.images[:, 0] - 20) / 40).round()
    wrong = (read != batch.masks)[~outside].float().mean()
    shifted = (read[..., 1:] != batch.masks[..., :-1])[~outside[..., :-1]].float().mean()
    assert wrong < 0.01
    assert shifted > 0.03  # so much would one pixel cost
    assert outside.any() == (config.crop == 100)


def test_masks_hold_no_values_between_classes(files, rng):
    mask = 9 * rng.integers(0, 2, (40, 50), dtype=np.uint8)
    files.add("c.png", encoding(mask), mask)
    batch = take(train_loader(files, CONFIG), 1)[0]
    assert set(batch.masks.unique().tolist()) - {255} == {0, 9}


def test_padding_is_zero_after_normalisation_and_void_in_masks(files):
    colour = np.array([200, 100, 50], np.uint8)
    files.add("c.png", np.tile(colour, (20, 30, 1)), np.full((20, 30), 3, np.uint8))
    config = TrainConfig(batch_size=8, crop=40)
    batch = take(train_loader(files, config, normalization=IMAGENET), 1)[0]
    inside = batch.masks == 3
    assert inside.sum(dim=(1, 2)).eq(20 * 30).all()
    assert batch.masks[~inside].eq(255).all()
    pixels = batch.images.movedim(1, -1)
    assert pixels[~inside].eq(0).all()
    expected = (torch.tensor(colour) - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)
    torch.testing.assert_close(pixels[inside], expected.expand(8 * 600, 3), atol=1e-5, rtol=0)
    corners = {tuple(each.nonzero()[0].tolist()) for each in inside}
    assert len(corners) > 1  # the image lies anywhere in the crop


def plain_crop(image: np.ndarray, number: int, count: int, config: TrainConfig) -> np.ndarray:
    """Sample `number` made by Pillow and NumPy: (crop, crop, 3) grey levels, 0 outside."""
    drawn = sample(number, count, 5, flip=config.flip)
    height, width = resized(image.shape[:2], drawn.size_draw, config)
    large = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    anchors = crop_anchor((height, width), config.crop, drawn.crop_draw)
    crop = config.crop
    top, left = (round(a * (side - crop)) for a, side in zip(anchors, (height, width), strict=True))
    framed = np.pad(large, ((crop, crop), (crop, crop), (0, 0)))
    crop_of = framed[crop + top :, crop + left :][:crop, :crop]
    return crop_of[:, ::-1] if drawn.flip else crop_of


@pytest.mark.parametrize(
    "augment",
    [{}, {"resize_long": (20, 90)}, {"scale": (0.3, 2.0)}, {"flip": False}],
    ids=["neither", "resize_long", "scale", "no_flip"],
)
def test_training_crops_equal_pillows(files, rng, augment):
    config = TrainConfig(batch_size=12, crop=32, **augment)
    for number in range(4):
        files.add(f"c{number}.png", blocks(rng, 30 + 9 * number, 60 - 7 * number))
    batch = take(train_loader(files, config, masks=None), 1)[0]
    for number, image_id in enumerate(batch.ids):
        image = read_image(files.image_path(image_id))
        expected = plain_crop(image, number, 4, config)
        found = batch.images[number].movedim(0, -1).numpy()
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def inference_loader(files: Files, ids: list[str], **options) -> InferenceLoader:
    defaults = {
        "scales": (1.0, 0.5, 1.7),
        "flip": True,
        "batch_size": 2,
        "normalization": GREY_LEVELS,
        "device": CPU,
    }
    return InferenceLoader(files, ids, **(defaults | options))


SIZES = [(21, 33), (33, 21), (21, 33), (21, 33), (33, 21), (21, 33), (21, 33)]


@pytest.fixture
def bucketed(files, rng) -> Files:
    """Five images of one size, two of another."""
    for number, size in enumerate(SIZES):
        files.add(f"{'cdsx'[number % 4]}{number}.png", blocks(rng, *size))
    return files


def test_batches_hold_images_of_one_size_and_all_images_once(bucketed):
    loader = inference_loader(bucketed, bucketed.ids(""))
    batches = list(loader)
    assert [len(batch.ids) for batch in batches] == [2, 2, 1, 2]
    assert len(loader) == 4
    assert sorted(name for batch in batches for name in batch.ids) == sorted(bucketed.ids(""))
    for batch in batches:
        assert {bucketed.size(image_id) for image_id in batch.ids} == {batch.size}
        height, width = batch.size
        for scale, views in zip((1.0, 0.5, 1.7), batch.views, strict=True):
            size = (round(height * scale), round(width * scale))
            assert views.shape == (len(batch.ids), 2, 3, *size)
        expected = np.stack([bucketed.labels(image_id) for image_id in batch.ids])
        assert torch.equal(batch.present, torch.from_numpy(expected))


def test_large_images_come_in_smaller_batches(bucketed, monkeypatch):
    monkeypatch.setattr("c2am.data.loader.MOST_PIXELS", 4 * 21 * 33)
    loader = inference_loader(bucketed, bucketed.ids(""), batch_size=9)
    assert [len(batch.ids) for batch in loader] == [4, 1, 2]
    monkeypatch.setattr("c2am.data.loader.MOST_PIXELS", 1)
    assert len(inference_loader(bucketed, bucketed.ids(""), batch_size=9)) == len(SIZES)


def test_the_second_view_is_the_mirror_of_the_first(bucketed):
    for batch in inference_loader(bucketed, bucketed.ids(""), normalization=IMAGENET):
        for views in batch.views:
            assert torch.equal(views[:, 1], views[:, 0].flip(-1))
            assert not torch.equal(views[:, 1], views[:, 0])


def test_without_flip_there_is_one_view(bucketed):
    batch = next(iter(inference_loader(bucketed, bucketed.ids(""), flip=False)))
    assert [views.shape[1] for views in batch.views] == [1, 1, 1]


def test_images_and_views_equal_pillows(bucketed):
    for batch in inference_loader(bucketed, bucketed.ids("")):
        for place, image_id in enumerate(batch.ids):
            image = read_image(bucketed.image_path(image_id))
            assert np.array_equal(batch.images[place].numpy(), image)
            for views in batch.views:
                size = (views.shape[-1], views.shape[-2])
                plain = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
                found = views[place, 0].movedim(0, -1).numpy()
                np.testing.assert_allclose(found, np.asarray(plain), atol=TOLERANCE)


def test_it_can_be_iterated_again_and_after_a_stop(bucketed):
    loader = inference_loader(bucketed, bucketed.ids(""))
    next(iter(loader))
    for one, other in zip(loader, loader, strict=True):
        assert one.ids == other.ids
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))


def test_no_images_are_no_batches(files):
    loader = inference_loader(files, [])
    assert len(loader) == 0
    assert list(loader) == []
