"""The one table of image sets, and how to load one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from taskdisc.errors import SettingError, did_you_mean
from taskdisc.images import (
    arrays,
    celeba,
    cifar10,
    cifar100,
    digits,
    folder,
    tiny_imagenet,
)
from taskdisc.images.cache import cache_folder
from taskdisc.images.image_set import ImageSet, Progress, check_side
from taskdisc.images.request import OWN, Request, Size
from taskdisc.paper import Paper


@dataclass(frozen=True)
class Source:
    """One row of `SOURCES`.

    Attributes:
        load: the loader.
        summary: one line for the user.
        splits: the splits that it may have; a folder's are known once it is read.
        paper: where it was first described; None for the user's own images.
        needs: what the user gives for it; empty where nothing.
    """

    load: Callable[[Request], ImageSet]
    summary: str
    splits: tuple[str, ...]
    paper: Paper | None = None
    needs: str = ""


KRIZHEVSKY = Paper(
    "Krizhevsky",
    2009,
    "Learning Multiple Layers of Features from Tiny Images",
    "https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
)

FETCHED = "a download (--download) or the files (--root)"

SOURCES: dict[str, Source] = {
    "digits": Source(
        digits.load,
        "1,797 handwritten digits, part of scikit-learn",
        ("train", "all"),
        Paper(
            "Alpaydin and Kaynak",
            1998,
            "Optical Recognition of Handwritten Digits",
            "https://doi.org/10.24432/C50P49",
        ),
    ),
    "cifar10": Source(
        cifar10.load, "CIFAR-10, downloadable (170 MB)", ("train", "test"), KRIZHEVSKY, FETCHED
    ),
    "cifar100": Source(
        cifar100.load,
        "CIFAR-100, fine and coarse classes, downloadable (170 MB) or image folders",
        ("train", "test"),
        KRIZHEVSKY,
        FETCHED,
    ),
    "tiny-imagenet": Source(
        tiny_imagenet.load,
        "Tiny ImageNet, 200 classes at 64 x 64, downloadable (250 MB), folder or .zip",
        ("train", "val"),
        Paper(
            "Le and Yang",
            2015,
            "Tiny ImageNet Visual Recognition Challenge",
            "https://cs231n.stanford.edu/reports/2015/pdfs/yle_project.pdf",
        ),
        FETCHED,
    ),
    "celeba": Source(
        celeba.load,
        "CelebA, faces with 40 attributes, downloadable",
        ("train", "val", "test", "all"),
        Paper(
            "Liu et al.",
            2015,
            "Deep Learning Face Attributes in the Wild",
            "https://arxiv.org/abs/1411.7766",
        ),
        FETCHED,
    ),
    "folder": Source(
        folder.load,
        "your images: a folder of class folders, or the same in a .zip (--root)",
        ("train", "val", "test", "all"),
        needs="your files (--root)",
    ),
    "arrays": Source(
        arrays.load,
        "your images: a .npz or .npy of uint8 arrays (--root)",
        ("train", "all"),
        needs="your files (--root)",
    ),
}


def load_images(
    source: str,
    *,
    root: str | Path | None = None,
    split: str = "train",
    download: bool = False,
    size: Size = None,
    cache: bool | str | Path = True,
    progress: Progress | None = None,
) -> ImageSet:
    """One split of an image set, in an order that never changes.

    Args:
        source: a key of `SOURCES`.
        root: where the images are: a folder, a .zip or an array file, as the source takes them.
            Downloadable sets default to ``$TASKDISC_DATA`` or ``~/.cache/taskdisc/data``.
        split: train, val, test or all as the source has them.
        download: fetch the images where they are missing.
        size: side [pixels] to which images are cut and resized, see `ImageSet.resized`; or `own`
            for images as large as they are there (178 x 218 of `celeba`, 8 x 8 of `digits`). None
            is 32 for `digits`, `folder` and `celeba`, and `own` for the others.
        cache: where decoded images are kept: True for ``$TASKDISC_CACHE`` or
            ``~/.cache/taskdisc/decoded``, False for nowhere, or a folder.
        progress: called with (images decoded, images in all) while images are decoded.

    Raises:
        SettingError: an argument breaks its rule.
        ImageSetError: the images are missing or unreadable.
    """
    if source not in SOURCES:
        raise SettingError(
            f"`source` must be an image set, got {source!r}: {did_you_mean(str(source), SOURCES)}"
        )
    if isinstance(size, str) and size != OWN:
        raise SettingError(
            f"`size` must be a whole number from 1 to 1024 [pixels] or {OWN}, got {size!r}."
        )
    if size is not None and size != OWN:
        check_side("size", size)
    request = Request(
        source=source,
        root=None if root is None else Path(root).expanduser(),
        split=split,
        download=download,
        size=size,
        cache=(cache_folder() if cache else None)
        if isinstance(cache, bool)
        else Path(cache).expanduser(),
        progress=progress,
    )
    row = SOURCES[source]
    request.check_split(row.splits)
    return row.load(request)
