"""An image set: N images of one shape, with the named target columns that its source has."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskdisc.errors import ImageSetError, SettingError, did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

Images: TypeAlias = NDArray[np.uint8]
Integers: TypeAlias = NDArray[np.int64]
Progress: TypeAlias = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """N images and what their source says about each.

    Attributes:
        source: name of the source, a key of `SOURCES` or ``array``.
        images: uint8 [N, H, W, 3]; may be a read-only memory map.
        targets: target name -> class number of each image, int64 [N]; the first is the default.
        classes: target name -> the class names that its numbers stand for.
        indices: int64 [N], position of each image in the source's full split; 0 … N-1 by default.
        notes: what a user must know of how these images were read, a sentence each.

    Raises:
        ImageSetError: a field breaks its rule; the sentence names the field.
    """

    source: str
    images: Images
    targets: dict[str, Integers] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    indices: Integers = None  # type: ignore[assignment]  # set from `images` when left out
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        images = self.images
        described = f"{getattr(images, 'dtype', type(images).__name__)} {np.shape(images)}"
        if (
            not isinstance(images, np.ndarray)
            or images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[3] != 3
            or 0 in images.shape
        ):
            raise ImageSetError(
                f"`images` must be uint8 [N, H, W, 3] with at least one image, got {described}."
            )
        if self.indices is None:
            object.__setattr__(self, "indices", np.arange(len(images), dtype=np.int64))
        _check_column("indices", self.indices, len(images))
        if list(self.targets) != list(self.classes):
            raise ImageSetError(
                "`classes` must name the classes of exactly the targets "
                f"{list(self.targets)}, got {list(self.classes)}."
            )
        for name, column in self.targets.items():
            _check_column(f"targets['{name}']", column, len(images))
            n_classes = len(self.classes[name])
            low, high = int(column.min()), int(column.max())
            if low < 0 or high >= n_classes:
                raise ImageSetError(
                    f"`targets['{name}']` must be class numbers from 0 to {n_classes - 1}, "
                    f"got values from {low} to {high}."
                )
            if len(set(self.classes[name])) != n_classes:
                raise ImageSetError(
                    f"`classes['{name}']` must be different names, got one of them twice."
                )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: Sequence[int] | NDArray[np.integer]) -> "ImageSet":
        """The images at `positions` (0 … N-1), in that order, with their targets and indices."""
        chosen = np.asarray(positions)
        if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu":
            raise SettingError(
                "`positions` must be a sequence of one or more integers, "
                f"got {chosen.dtype} {chosen.shape}."
            )
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise SettingError(
                f"`positions` must be from 0 to {len(self) - 1}, "
                f"got values from {chosen.min()} to {chosen.max()}."
            )
        return replace(
            self,
            images=np.asarray(self.images[chosen]),
            targets={name: column[chosen] for name, column in self.targets.items()},
            indices=self.indices[chosen],
        )

    def resized(self, side: int) -> "ImageSet":
        """The same set with images of `side` x `side` pixels.

        Bicubic with antialiasing. An image that is not square is first cut to its central square,
        so that proportions stay.
        """
        check_side("side", side)
        if self.images.shape[1:3] == (side, side):
            return self
        from PIL import Image

        images = np.empty((len(self), side, side, 3), dtype=np.uint8)
        for i, pixels in enumerate(self.images):
            images[i] = np.asarray(fitted(Image.fromarray(np.asarray(pixels)), side, side))
        return replace(self, images=images)

    def target(self, name: str | None = None) -> str:
        """The name of a target that this set has: `name`, or the first where it is None.

        Raises:
            SettingError: the set has no target of this name, or none at all.
        """
        if not self.targets:
            raise SettingError(
                f"`target` must be a target of the image set, got {name!r}: "
                f"'{self.source}' came without any classes."
            )
        if name is None:
            return next(iter(self.targets))
        if name not in self.targets:
            raise SettingError(
                f"`target` must be a target of '{self.source}', got {name!r}: "
                f"{did_you_mean(name, self.targets)}"
            )
        return name

    def hashes(self) -> list[str]:
        """A content hash of each image: the first 16 hex digits of SHA-256 of shape and pixels."""
        head = repr(self.images.shape[1:]).encode()
        return [hashlib.sha256(head + pixels.tobytes()).hexdigest()[:16] for pixels in self.images]

    def content_hash(self) -> str:
        """16 hex digits that change with any pixel, the shape or the order, not with targets."""
        return hashlib.sha256("".join(self.hashes()).encode()).hexdigest()[:16]


def as_image_set(images: "ImageSet | NDArray[np.uint8]", source: str = "array") -> ImageSet:
    """`images` itself, or a plain array wrapped as an image set without targets.

    Args:
        images: an image set, or uint8 [N, H, W, C] with C = 1 or 3, or grey uint8 [N, H, W].
        source: name of the source that the wrapped set gets.

    Raises:
        ImageSetError: an array of another type or shape. Channels-first arrays are refused, not
            guessed at.
    """
    if isinstance(images, ImageSet):
        return images
    # A grey image three pixels wide is no image; a single colour image passed by mistake is likely.
    grey = isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[2] != 3
    colour = isinstance(images, np.ndarray) and images.ndim == 4 and images.shape[3] in (1, 3)
    if not (grey or colour) or images.dtype != np.uint8 or 0 in images.shape:
        cure = ""
        if isinstance(images, np.ndarray):
            got = f"{images.dtype} {images.shape}"
            if images.ndim == 4 and images.shape[1] in (1, 3):
                cure = " Channels come last: use images.transpose(0, 2, 3, 1)."
            elif images.dtype != np.uint8 and (grey or colour):
                cure = " Scale the pixels to 0 … 255 and use images.astype('uint8')."
            elif images.ndim == 3 and images.shape[2] == 3:
                cure = " One image alone is images[None]."
        else:
            got = type(images).__name__
        raise ImageSetError(
            "`images` must be an array uint8 [N, H, W, C] with C = 1 or 3, or grey [N, H, W], "
            f"with at least one image, got {got}.{cure}"
        )
    if grey:
        images = images[..., None]
    if images.shape[3] == 1:
        images = np.repeat(images, 3, axis=3)
    return ImageSet(source=source, images=images)


def check_side(name: str, side: object) -> None:
    """Refuse a side that is not a whole number of pixels from 1 to 1024."""
    if isinstance(side, bool) or not isinstance(side, int | np.integer) or not 1 <= side <= 1024:
        raise SettingError(
            f"`{name}` must be a whole number from 1 to 1024 [pixels], got {side!r}."
        )


def fitted(image: "Image", height: int, width: int) -> "Image":
    """The central part of `image` with these proportions, resized (bicubic, antialiased)."""
    from PIL import Image

    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    across, down = max(1, round(scale * width)), max(1, round(scale * height))
    left, top = (image.width - across) // 2, (image.height - down) // 2
    box = (left, top, left + across, top + down)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def _check_column(name: str, column: object, n_images: int) -> None:
    if not (
        isinstance(column, np.ndarray) and column.dtype == np.int64 and column.shape == (n_images,)
    ):
        got = type(column).__name__
        if isinstance(column, np.ndarray):
            got = f"{column.dtype} {list(column.shape)}"
        raise ImageSetError(f"`{name}` must be int64 [{n_images}], one per image, got {got}.")
