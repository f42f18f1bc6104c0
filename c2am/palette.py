"""The colour map of PASCAL VOC."""

import numpy as np

VOID = 255
"""Mask value of pixels without a class: the borders and the unsure."""


def voc_palette() -> np.ndarray:
    """The 256 colours of PASCAL VOC masks, `(256, 3)` uint8.

    The bits of the index are dealt in turn to red, green and blue, highest first: 0 is black
    (background), `VOID` is (224, 224, 192).
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (index >> (3 * place + channel)) & 1
            palette[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return palette
