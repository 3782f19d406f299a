"""Images that are an array already: a .npz or a .npy of numpy's."""

from pathlib import Path

import numpy as np

from taskdisc.archives import map_array, names_of_arrays, one_line, read_arrays_of
from taskdisc.errors import ImageSetError
from taskdisc.images.image_set import ImageSet, Integers, as_image_set
from taskdisc.images.request import Request


def load(request: Request) -> ImageSet:
    """The array `images` of a .npz with its other arrays as targets, or the array of a .npy.

    `images` is uint8 [N, H, W, C] with C = 1 or 3, or grey [N, H, W]; channels-first arrays are
    refused. Every other array of a .npz is a target: integers or booleans [N], whose values, in
    order, become the classes. Nothing is unpickled. The split ``train`` (or ``all``) is everything.
    """
    root = request.check_root("a .npz with an array 'images', or a .npy")
    request.check_split(("train", "all"), "an array has no division")
    arrays = _read(root)
    try:
        found = as_image_set(arrays.pop("images"), request.source)
    except ImageSetError as error:
        raise ImageSetError(f"'{root}': {error}") from None
    targets: dict[str, Integers] = {}
    classes: dict[str, list[str]] = {}
    for name, column in arrays.items():
        if column.dtype.kind not in "iub" or column.shape != (len(found),):
            raise ImageSetError(
                f"`{name}` in '{root}' must be integers [{len(found)}], one per image, "
                f"got {column.dtype} {column.shape}."
            )
        values, numbers = np.unique(column, return_inverse=True)
        targets[name] = numbers.astype(np.int64)
        classes[name] = [str(value) for value in values.tolist()]
    found = ImageSet(request.source, found.images, targets, classes)
    return found if (side := request.side(None)) is None else found.resized(side)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
        if is_archive:
            _check_names(path, names_of_arrays(path))
            return read_arrays_of(path)
        # A .npy is mapped, so that a set larger than memory can be selected from.
        return {"images": map_array(path)}
    except ImageSetError:  # a ValueError too
        raise
    except IsADirectoryError as error:
        raise ImageSetError(
            "`root` must be a .npz or .npy of images for source 'arrays', got the folder "
            f"'{path}'; a folder of image files has a source of its own, 'folder'."
        ) from error
    except (ValueError, OSError) as error:
        raise ImageSetError(
            f"'{path}' must be a .npz or .npy of plain arrays (no objects, no pickles), "
            f"got one that cannot be read: {one_line(error)}."
        ) from error


def _check_names(path: Path, names: list[str]) -> None:
    # Before anything is read: any .zip opens like a .npz, also one of 100,000 photographs.
    if "images" not in names:
        some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "nothing"
        raise ImageSetError(f"'{path}' must hold an array 'images', got {some}.")
