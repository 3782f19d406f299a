"""Reading CIFAR in torchvision's layout, which both CIFAR sets share."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from taskdisc.errors import ImageSetError
from taskdisc.images.image_set import Images, Integers
from taskdisc.images.request import Request

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


def read_cifar(dataset: "type[CIFAR10]", request: Request) -> tuple[Images, Integers, list[str]]:
    """Images [N, 32, 32, 3], class numbers [N] and class names of one split.

    The files are pickles. torchvision compares each with its known MD5 before it unpickles any,
    also where nothing is downloaded; no other file is ever opened.

    Args:
        dataset: torchvision's class, `CIFAR10` or `CIFAR100`.
        request: its root is the folder that holds the class's `base_folder`, or that folder itself.

    Raises:
        ImageSetError: missing, damaged, or not to be downloaded.
    """
    root = cifar_root(request.data_root, dataset.base_folder)
    if not (root / dataset.base_folder).is_dir() and not request.download:
        raise request.missing(f"the folder '{dataset.base_folder}'")
    try:
        with warnings.catch_warnings():
            # The archives were pickled by numpy 1: newer ones warn of the form of their dtype.
            warnings.simplefilter("ignore")
            data = dataset(root, train=request.split == "train", download=request.download)
    # OSError has the download's URLError and a full disk among its children.
    except (RuntimeError, OSError) as error:
        if request.download:
            raise ImageSetError(
                f"'{request.source}' could not be downloaded to '{root}': {error}. "
                f"Fetch {dataset.url} by other means and unpack it there."
            ) from error
        raise ImageSetError(
            f"'{root / dataset.base_folder}' must hold the files of '{request.source}' with their "
            "known checksums, got missing or damaged ones; fetch them anew with --download."
        ) from error
    return np.ascontiguousarray(data.data), np.array(data.targets, dtype=np.int64), data.classes


def cifar_root(root: Path, base_folder: str) -> Path:
    """The folder that holds `base_folder`, where `root` may be either of the two."""
    return root.parent if root.name == base_folder else root
