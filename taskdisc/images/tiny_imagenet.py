"""Tiny ImageNet: 64 x 64 photographs of 200 things, in the layout it was published in."""

from collections import Counter
from pathlib import Path

from taskdisc.errors import ImageSetError
from taskdisc.images.decode import decode_files
from taskdisc.images.folder import numbered
from taskdisc.images.image_set import ImageSet
from taskdisc.images.request import Request
from taskdisc.images.tree import Tree, open_tree

_FOLDER = "tiny-imagenet-200"
_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def load(request: Request) -> ImageSet:
    """100,000 train or 10,000 val images, target `class`; a part of them is read alike.

    Source: Le and Yang, Tiny ImageNet Visual Recognition Challenge, 2015. Classes are numbered in
    the order of wnids.txt and named by the first synonym of words.txt, with the wnid beside it
    where two share a name. The published test part has no labels and is left out. Greyscale
    photographs become colour ones; images keep their 64 x 64 pixels unless `size` says otherwise.
    """
    with open_tree(_place(request)) as tree:
        top = _top(tree)
        wnids = tree.text(f"{top}wnids.txt").split()
        if not wnids:
            raise ImageSetError(f"'{tree.shown(top + 'wnids.txt')}' must name classes, got none.")
        names = _names(tree, top, wnids)
        by_wnid = _train(tree, top) if request.split == "train" else _val(tree, top)
        for wnid in by_wnid:
            if wnid not in wnids:
                raise ImageSetError(
                    f"Every class of '{tree.location}' must be listed in wnids.txt, got '{wnid}'."
                )
        paths, labels = numbered(by_wnid, wnids)
        if not paths:
            raise request.missing(f"{request.split} images", can_download=False)
        images = decode_files(tree, paths, request, request.side(None))
    return ImageSet(request.source, images, {"class": labels}, {"class": names})


def _place(request: Request) -> Path:
    """The folder or .zip that holds the set, downloaded where that was asked for."""
    root = request.data_root
    if root.is_file():
        return root
    for folder in (root, root / _FOLDER):
        if (folder / "wnids.txt").is_file():
            return folder
    archive = root / f"{_FOLDER}.zip"
    if not archive.is_file():
        if not request.download:
            raise request.missing(f"the folder '{_FOLDER}' or '{archive.name}'")
        from torchvision.datasets.utils import download_url

        try:
            download_url(_URL, str(root), archive.name, _MD5)
        except (RuntimeError, OSError) as error:
            raise ImageSetError(
                f"'{request.source}' could not be downloaded to '{root}': {error}. "
                f"Fetch {_URL} by other means and give it with --root."
            ) from error
    return archive


def _top(tree: Tree) -> str:
    """The path before wnids.txt, ending in "/" or empty."""
    for path in sorted(tree.files, key=lambda path: (path.count("/"), path)):
        if path.split("/")[-1] == "wnids.txt":
            return path.removesuffix("wnids.txt")
    raise ImageSetError(
        f"`root` must hold Tiny ImageNet's wnids.txt, words.txt, train/ and val/, "
        f"got none of them in '{tree.location}'."
    )


def _names(tree: Tree, top: str, wnids: list[str]) -> list[str]:
    words = dict(
        line.split("\t", 1) for line in tree.text(f"{top}words.txt").splitlines() if "\t" in line
    )
    first = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    shared = {name for name, count in Counter(first).items() if count > 1}
    return [
        f"{name} ({wnid})" if name in shared else name
        for name, wnid in zip(first, wnids, strict=True)
    ]


def _train(tree: Tree, top: str) -> dict[str, list[str]]:
    by_wnid: dict[str, list[str]] = {wnid: [] for wnid in tree.children(f"{top}train")}
    start = len(f"{top}train/")
    for path in tree.images(f"{top}train"):
        by_wnid.setdefault(path[start:].split("/")[0], []).append(path)
    for wnid, paths in by_wnid.items():
        if not paths:
            raise ImageSetError(
                f"Class folder '{tree.shown(f'{top}train/{wnid}')}' must hold at least one image, "
                "got none."
            )
    return by_wnid


def _val(tree: Tree, top: str) -> dict[str, list[str]]:
    annotations = f"{top}val/val_annotations.txt"
    by_wnid: dict[str, list[str]] = {}
    seen: set[str] = set()
    for number, line in enumerate(tree.text(annotations).splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split("\t")
        path = f"{top}val/images/{fields[0]}"
        if len(fields) < 2 or path not in tree.files:
            raise ImageSetError(
                f"Line {number} of '{tree.shown(annotations)}' must name an image of val/images "
                f"and its class, got {line!r}."
            )
        if path in seen:
            raise ImageSetError(
                f"'{tree.shown(annotations)}' must name every image once, got {fields[0]!r} again "
                f"in line {number}; remove one of them."
            )
        seen.add(path)
        by_wnid.setdefault(fields[1], []).append(path)
    return {wnid: sorted(paths) for wnid, paths in by_wnid.items()}
