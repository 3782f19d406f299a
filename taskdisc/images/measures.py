"""Measures of images that follow from their pixels, as data."""

from collections.abc import Callable

import numpy as np

MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "bright": lambda pixels: pixels.mean(axis=(1, 2, 3)),
    "red": lambda pixels: _excess(pixels, 0),
    "green": lambda pixels: _excess(pixels, 1),
    "blue": lambda pixels: _excess(pixels, 2),
    "saturated": lambda pixels: (pixels.max(axis=3) - pixels.min(axis=3)).mean(axis=(1, 2)),
    "rich in contrast": lambda pixels: pixels.mean(axis=3).std(axis=(1, 2)),
    "bright above": lambda pixels: _half(pixels, 1),
    "bright on the left": lambda pixels: _half(pixels, 2),
}
"""What is visible of an image without knowing what it shows: pixels in [0, 1], [n, H, W, 3] -> [n].

The names are those of attributes: how bright an image is, how red, …
"""


def measured(images: np.ndarray, name: str) -> np.ndarray:
    """A measure of all images uint8 [n, H, W, 3], some at a time: [n]."""
    parts = np.array_split(np.arange(len(images)), max(1, len(images) // 1000))
    return np.concatenate([MEASURES[name](np.asarray(images[part]) / 255.0) for part in parts])


def _excess(pixels: np.ndarray, channel: int) -> np.ndarray:
    """How much one channel exceeds the mean of all three."""
    return (pixels[..., channel] - pixels.mean(axis=3)).mean(axis=(1, 2))


def _half(pixels: np.ndarray, axis: int) -> np.ndarray:
    """How much brighter the first half along an axis is than the second."""
    first, second = np.array_split(pixels.mean(axis=3), 2, axis=axis)
    return first.mean(axis=(1, 2)) - second.mean(axis=(1, 2))
