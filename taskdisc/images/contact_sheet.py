"""Seeing an image set: a sheet of its images by class, and its counts."""

from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.errors import SettingError
from taskdisc.images.image_set import Images, ImageSet
from taskdisc.names import shortened

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP = 2  # white pixels around each image
_TILE = 64  # side [pixels] up to which small images are enlarged on a class sheet


def contact_sheet(images: Images, columns: int, scale: int = 1) -> Images:
    """The images side by side on white, row by row.

    Args:
        images: uint8 [n, H, W, 3].
        columns: images in a row.
        scale: whole factor by which pixels are enlarged, each to a square.

    Returns:
        uint8 [height, width, 3].
    """
    for name, value in (("columns", columns), ("scale", scale)):
        if value < 1:
            raise SettingError(f"`{name}` must be at least 1, got {value!r}.")
    tiles = np.repeat(np.repeat(images, scale, axis=1), scale, axis=2)
    n, height, width, channels = tiles.shape
    rows = -(-n // columns)
    step_y, step_x = height + _GAP, width + _GAP
    shape = (rows * step_y + _GAP, columns * step_x + _GAP, channels)
    sheet = np.full(shape, 255, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        y, x = _GAP + i // columns * step_y, _GAP + i % columns * step_x
        sheet[y : y + height, x : x + width] = tile
    return sheet


def class_sheet(
    image_set: ImageSet,
    target: str | None = None,
    per_class: int = 12,
    max_classes: int = 20,
    seed: int = 0,
) -> "Image":
    """One row of images per class, with the class's name at its left.

    Args:
        image_set: where the images are from; without targets its rows have no names.
        target: whose classes; None is the set's first.
        per_class: images in a row, drawn by `seed`; a class with fewer shows all.
        max_classes: rows; the first classes that have images.
        seed: of the draw.
    """
    for name, value in (("per_class", per_class), ("max_classes", max_classes)):
        if value < 1:
            raise SettingError(f"`{name}` must be at least 1, got {value!r}.")
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    rows: list[tuple[str, Images]] = []
    for name, members in _rows(image_set, target, per_class, max_classes):
        shown = np.sort(rng.choice(members, min(per_class, len(members)), replace=False))
        rows.append((shortened(name), np.asarray(image_set.images[shown])))
    font = ImageFont.load_default()
    scale = max(1, _TILE // image_set.images.shape[1])
    strips = [contact_sheet(images, per_class, scale) for _, images in rows]
    margin = max(int(font.getlength(name)) for name, _ in rows)
    margin += 8 if margin else 0
    height = strips[0].shape[0]
    sheet = Image.new("RGB", (margin + strips[0].shape[1], height * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, ((name, _), strip) in enumerate(zip(rows, strips, strict=True)):
        sheet.paste(Image.fromarray(strip), (margin, i * height))
        draw.text((4, i * height + height // 2 - 6), name, fill="black", font=font)
    return sheet


def summary(image_set: ImageSet) -> dict[str, Any]:
    """What the set holds, ready for JSON: source, count, shape [H, W, C], images of each class."""
    return {
        "source": image_set.source,
        "count": len(image_set),
        "shape": [int(n) for n in image_set.images.shape[1:]],
        "targets": {
            target: dict(
                zip(names, np.bincount(column, minlength=len(names)).tolist(), strict=True)
            )
            for target, names in image_set.classes.items()
            for column in (image_set.targets[target],)
        },
    }


def _rows(
    image_set: ImageSet, target: str | None, per_class: int, max_rows: int
) -> list[tuple[str, np.ndarray]]:
    """Name and positions of the images of each row."""
    if not image_set.targets and target is None:
        everything = np.arange(len(image_set))
        n_rows = min(max_rows, -(-len(everything) // per_class))
        return [("", part) for part in np.array_split(everything, n_rows)]
    target = image_set.target(target)
    labels = image_set.targets[target]
    present = np.unique(labels)[:max_rows].tolist()
    return [(image_set.classes[target][k], np.flatnonzero(labels == k)) for k in present]
