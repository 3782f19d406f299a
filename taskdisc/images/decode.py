"""From image files to one array."""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from taskdisc.errors import ImageSetError
from taskdisc.images.cache import cached
from taskdisc.images.image_set import Images, fitted
from taskdisc.images.request import Request
from taskdisc.images.tree import Tree

if TYPE_CHECKING:
    from PIL.Image import Image

# Part of every cache key: to be raised whenever the same files would decode to other pixels.
_VERSION = 1
_BATCH = 512

MOST_PIXELS = 89_478_485
"""Of one image: above it, Pillow warns of a bomb. It would take 256 MiB as colours."""

# Of the endings in `tree`. Pillow reads others, by what a file holds: of some it is not sure, and
# of one it starts an interpreter of PostScript.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")

Shape: TypeAlias = tuple[int, int]
"""Height and width [pixels]."""


def decode_files(
    tree: Tree, paths: Sequence[str], request: Request, size: int | Shape | None
) -> Images:
    """The images at `paths` as uint8 [N, H, W, 3], from the cache where they are there already.

    Args:
        tree: where the files are.
        paths: which of them, in the order of the result; at least one.
        request: its cache folder and progress callback are used.
        size: side, or height and width, that every image is cut and resized to; None keeps the
            images' own shape.

    Raises:
        ImageSetError: an image is unreadable, or, without `size`, has another shape than the first.
    """
    first = decode(tree.read(paths[0]), tree.shown(paths[0]), size)
    shape = (len(paths), *first.shape)

    def one(path: str) -> Images:
        pixels = decode(tree.read(path), tree.shown(path), size)
        if pixels.shape != first.shape:
            raise ImageSetError(
                f"'{tree.shown(path)}' must have {first.shape[0]} x {first.shape[1]} pixels like "
                f"the set's first image, got {pixels.shape[0]} x {pixels.shape[1]}; "
                "give a size in pixels to resize them all."
            )
        return pixels

    def batches() -> Iterator[Images]:
        # Threads: Pillow and zlib work without the interpreter's lock.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(paths), _BATCH):
                part = paths[start : start + _BATCH]
                yield np.stack(list(pool.map(one, part)))
                if request.progress is not None:
                    request.progress(start + len(part), len(paths))

    return cached(request.cache, _key(tree, paths, size), shape, batches)


def count_of_other_shape(
    tree: Tree, paths: Sequence[str], request: Request, height: int, width: int
) -> int:
    """How many of the images at `paths` are not of this height and width, by their headers.

    Raises:
        ImageSetError: one of them is no image.
    """

    def other(path: str) -> bool:
        return _shape_of(tree.read(path), tree.shown(path)) != (height, width)

    def batches() -> Iterator[Images]:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(paths), _BATCH):
                part = paths[start : start + _BATCH]
                yield np.fromiter(pool.map(other, part), dtype=np.uint8, count=len(part))

    # Kept like decoded images: a large set has more headers than one wants to read every time.
    key = _key(tree, paths, (height, width)) + "-others"
    return int(cached(request.cache, key, (len(paths),), batches).sum())


def decode(data: bytes, shown: str, size: int | Shape | None = None) -> Images:
    """One image file as uint8 [H, W, 3], upright (EXIF), transparency laid on white.

    Args:
        data: the file's content.
        shown: how the error sentence names the file.
        size: side of the result, or its height and width [pixels], to which the central part of
            these proportions is resized; None keeps the image's shape.

    Raises:
        ImageSetError: the file is no image, is truncated, or has pixels that are no colours.
    """
    from PIL import ImageOps

    try:
        with _opened(data) as opened:
            opened.load()
            image = _rgb(ImageOps.exif_transpose(opened))
    # Decoders of damaged files raise almost anything (OSError, SyntaxError, struct.error, …).
    except Exception as error:
        raise _unreadable(shown, error) from error
    if size is None:
        return np.array(image)
    height, width = (size, size) if isinstance(size, int) else size
    return np.array(fitted(image, height, width))


def _shape_of(data: bytes, shown: str) -> Shape:
    """Height and width of one image file, upright, without decoding it."""
    from PIL.ExifTags import Base

    try:
        with _opened(data) as opened:
            turned = opened.getexif().get(Base.Orientation, 1) >= 5
            return opened.size if turned else (opened.height, opened.width)
    except Exception as error:  # as in `decode`
        raise _unreadable(shown, error) from error


def _opened(data: bytes) -> "Image":
    """An image whose header is read, and not more; small enough to be."""
    from PIL import Image

    opened = Image.open(io.BytesIO(data), formats=_FORMATS)
    if opened.width * opened.height > MOST_PIXELS:
        size = f"{opened.width:,} x {opened.height:,}"
        raise ValueError(f"it has {size} pixels, and may have {MOST_PIXELS:,}: shrink it")
    return opened


def _unreadable(shown: str, error: Exception) -> ImageSetError:
    return ImageSetError(
        f"'{shown}' must be a whole image, got one that cannot be read "
        f"({_one_line(error)}); mend or remove it."
    )


def _rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # 16-bit grey, which `convert` would clip at 255 instead of scaling.
        pixels = np.asarray(image).astype(np.int64)
        return Image.fromarray((pixels.clip(0, 65535) // 256).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _key(tree: Tree, paths: Sequence[str], size: int | Shape | None) -> str:
    digest = hashlib.sha256(f"{_VERSION}\0{size}\0".encode() + os.fsencode(tree.identity))
    for path in paths:
        entry = tree.files[path]
        digest.update(b"\0" + os.fsencode(path) + f"\0{entry.n_bytes}\0{entry.stamp}".encode())
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    # Pillow names the BytesIO object in its message, which tells the user nothing.
    words = str(error).split(" <_io.BytesIO")[0].splitlines()
    return words[0].rstrip(".") if words and words[0] else type(error).__name__
