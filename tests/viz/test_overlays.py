import numpy as np
import pytest

from c2am.viz import overlays


def test_heat_clips_and_spans_the_colour_map():
    colours = overlays.heat(np.array([[-1.0, 0.0, 1.0, 2.0]]))
    assert colours.dtype == np.uint8
    assert colours.shape == (1, 4, 3)
    np.testing.assert_array_equal(colours[0, 0], colours[0, 1])
    np.testing.assert_array_equal(colours[0, 2], colours[0, 3])
    assert not np.array_equal(colours[0, 1], colours[0, 2])


def test_blend_weighs_pixel_by_pixel():
    image = np.zeros((1, 2, 3), np.uint8)
    colours = np.full((1, 2, 3), 200, np.uint8)
    mixed = overlays.blend(image, colours, np.array([[0.0, 0.5]]))
    np.testing.assert_array_equal(mixed[0, :, 0], [0, 100])


def test_mask_colours_are_those_of_voc():
    mask = np.array([[0, 1, 15, 255]], np.uint8)
    expected = [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    np.testing.assert_array_equal(overlays.colour_mask(mask)[0], expected)


def test_mask_overlay_greys_the_background_outlines_and_colours_the_rest():
    image = np.full((1, 3, 3), (200, 100, 0), np.uint8)
    drawn = overlays.overlay_mask(image, np.array([[0, 1, 1]], np.uint8), alpha=1.0)
    np.testing.assert_array_equal(drawn[0], [[60, 60, 60], [255, 255, 255], [128, 0, 0]])


@pytest.mark.parametrize("draw", [overlays.overlay_cam, overlays.overlay_mask])
def test_a_layer_of_another_size_is_refused(draw):
    with pytest.raises(ValueError, match=r"expected shape \(4, 5\), got \(4, 4\)"):
        draw(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), np.uint8))


def test_fit_keeps_the_aspect_and_never_enlarges():
    assert overlays.fit(np.zeros((100, 50, 3), np.uint8), 20).shape == (20, 10, 3)
    assert overlays.fit(np.zeros((10, 7, 3), np.uint8), 20).shape == (10, 7, 3)
    assert overlays.fit(np.zeros((500, 1, 3), np.uint8), 20).shape == (20, 1, 3)
