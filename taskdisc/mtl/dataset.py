"""An image set with its labels as a dataset of PyTorch: for a loader and a loop of one's own."""

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from taskdisc.discovery.tasks import Tasks, load_tasks
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet, as_image_set

Item: TypeAlias = tuple[Tensor, dict[str, Tensor]]


class TaskDataset(Dataset[Item]):
    """Images with the labels of a main target and of discovered tasks, some of them missing.

    An item is `(image, labels)`: the image float32 [3, H, W] in [0, 1], and by name the label of
    each task as `taskdisc.mtl.tasks.Task` has them: of the main target its class number int64 [],
    −1 where unknown; of a discovered task float32 [1], 0 or 1, NaN where unknown. PyTorch's own
    collation makes them [batch] and [batch, 1], which is what `taskdisc.mtl.tasks.loss_of` takes.

    Images are decoded nowhere and copied one by one as they are asked for: an array that is mapped
    from a file stays so, in the workers of a loader too.

    Attributes:
        names: The names of all labels, the main target first.

    Args:
        image_set: N images, or uint8 [N, H, W, C].
        main: The target of the image set that matters; None takes none.
        tasks: Discovered tasks whose images the set holds, in any order, or where they are. Images
            that they do not know have no label.
        labelled: Positions of the images whose label of the main target may be seen; of the others
            it is missing. None takes all.
        transform: Applied to the image float32 [3, H, W].

    Raises:
        SettingError: no such target, tasks of other images, or two labels of one name.
        ImageSetError: images of another type or shape.
        RunFolderError: the tasks cannot be read.
    """

    def __init__(
        self,
        image_set: ImageSet | NDArray[np.uint8],
        main: str | None = None,
        tasks: Tasks | str | Path | None = None,
        *,
        labelled: Sequence[int] | NDArray[np.integer] | None = None,
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        image_set = as_image_set(image_set)
        if isinstance(tasks, str | Path):
            tasks = load_tasks(tasks)
        self.names: list[str] = [] if main is None else [image_set.target(main)]
        self.transform = transform
        self._images = np.asarray(image_set.images)  # a view, for slicing a map is slow
        self._classes = _main_labels(image_set, main, labelled)
        self._labels = np.empty((len(image_set), 0), dtype=np.int8)
        if tasks is not None:
            self.names += tasks.names.tolist()
            # A row for each image, for that is how they are asked for.
            self._labels = np.ascontiguousarray(tasks.on(image_set).labelings.T.astype(np.int8))
        for name in self.names:
            if self.names.count(name) > 1:
                raise SettingError(
                    f"every name of `tasks` must differ from `main` and the others, got {name!r} "
                    "twice; rename it in the gallery and export again."
                )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> Item:
        pixels = self._images[position].transpose(2, 0, 1)
        image = torch.from_numpy(np.divide(pixels, 255, dtype=np.float32, order="C"))
        row = self._labels[position].astype(np.float32)
        row[row < 0] = np.nan
        labels = torch.from_numpy(row)[:, None].unbind()
        if self._classes is not None:
            labels = (torch.tensor(self._classes[position]), *labels)
        image = image if self.transform is None else self.transform(image)
        return image, dict(zip(self.names, labels, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a worker that is not forked: of mapped images only where they are."""
        return {**self.__dict__, "_images": _place(self._images)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        place = state["_images"]
        images = place if isinstance(place, np.ndarray) else np.memmap(mode="r", **place)
        self.__dict__.update(state, _images=np.asarray(images))


def _main_labels(
    image_set: ImageSet, main: str | None, labelled: Sequence[int] | NDArray[np.integer] | None
) -> np.ndarray | None:
    """Class numbers int64 [N], −1 where they must not be seen."""
    if main is None:
        if labelled is not None:
            raise SettingError(
                "`labelled` must be left out where `main` is, got positions: name the target whose "
                "labels they have."
            )
        return None
    numbers = image_set.targets[image_set.target(main)]
    if labelled is None:
        return numbers
    seen = np.asarray(labelled)
    if seen.ndim != 1 or seen.dtype.kind not in "iu" or not _within(seen, len(numbers)):
        raise SettingError(
            f"`labelled` must be positions from 0 to {len(numbers) - 1}, got {seen.dtype} "
            f"{list(seen.shape)}" + (f" from {seen.min()} to {seen.max()}." if seen.size else ".")
        )
    hidden = np.full_like(numbers, -1)
    hidden[seen] = numbers[seen]
    return hidden


def _within(positions: np.ndarray, n: int) -> bool:
    return bool(len(positions) and positions.min() >= 0 and positions.max() < n)


def _place(images: np.ndarray) -> np.ndarray | dict[str, Any]:
    """Where in which file these images are mapped from, as `np.memmap` takes it; else they."""
    whole = images
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    # Of a private map ("c") the file does not know the changes.
    if (
        not isinstance(whole, np.memmap)
        or not isinstance(whole.base, mmap.mmap)
        or whole.filename is None
        or whole.mode == "c"
        or not images.flags.c_contiguous
    ):
        return images
    start = images.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return {
        "filename": whole.filename,
        "dtype": images.dtype,
        "shape": images.shape,
        "offset": whole.offset + start,
    }
