"""Images of the user's own: a folder of class folders, or the same inside a .zip."""

from collections.abc import Mapping, Sequence

import numpy as np

from taskdisc.errors import ImageSetError
from taskdisc.images.decode import decode_files
from taskdisc.images.image_set import ImageSet, Integers
from taskdisc.images.request import Request
from taskdisc.images.tree import Tree, open_tree

_SIDE = 32  # what the LeNet of the source work takes
# Names that mark a set as divided, by the split that they hold.
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def load(request: Request) -> ImageSet:
    """Every image below the class folders of `root`, with the target `class`.

    Folders named train, val and test at the top are splits; otherwise the split ``train`` (or
    ``all``) is everything. Classes are numbered in the order of their names, over all splits alike.
    A folder of images without class folders is a set without targets. Images get the side of
    `size`, 32 by default; with ``own`` they must be of one shape.
    """
    root = request.check_root("the folder or .zip of the images")
    with open_tree(root) as tree:
        top = _top(tree)
        present = tree.children(top)
        divided = {split: name for name, split in _SPLITS.items() if name in present}
        if not tree.images(top):
            raise ImageSetError(
                f"`root` must hold image files (.png, .jpg, …), got none in '{root}'."
            )
        if divided and len(divided) == len(present):
            request.check_split(tuple(divided), f"these are the splits in '{root}'")
            part = _under(top, divided[request.split])
            names = sorted(
                {name for s in divided.values() for name in tree.children(_under(top, s))}
            )
        else:
            request.check_split(("train", "all"), f"'{root}' is not divided into splits")
            part, names = top, present
        if tree.children(part):
            paths, labels = numbered(class_folders(tree, part), names)
            targets, classes = {"class": labels}, {"class": names}
        else:
            paths, targets, classes = tree.images(part), {}, {}
            if not paths:
                raise ImageSetError(f"'{tree.shown(part)}' must hold images, got none.")
        images = decode_files(tree, paths, request, request.side(_SIDE))
    return ImageSet(request.source, images, targets, classes)


def class_folders(tree: Tree, folder: str) -> dict[str, list[str]]:
    """Class name -> paths of its images (at any depth), both sorted, of the folders in `folder`.

    Raises:
        ImageSetError: a class folder without images, or images beside the class folders.
    """
    by_class: dict[str, list[str]] = {name: [] for name in tree.children(folder)}
    depth = folder.count("/") + 1 if folder else 0
    for path in tree.images(folder):
        parts = path.split("/")
        if len(parts) == depth + 1:
            raise ImageSetError(
                f"Images must lie in class folders where there are any, got '{tree.shown(path)}' "
                "beside them; move it into one."
            )
        by_class[parts[depth]].append(path)
    for name, paths in by_class.items():
        if not paths:
            raise ImageSetError(
                f"Class folder '{tree.shown(_under(folder, name))}' must hold at least one image "
                "(.png, .jpg, …), got none; fill or remove it."
            )
    return by_class


def numbered(
    by_class: Mapping[str, Sequence[str]], names: Sequence[str]
) -> tuple[list[str], Integers]:
    """All paths, grouped by class in the order of `names`, and the class number of each."""
    paths = [path for name in names for path in by_class.get(name, ())]
    counts = [len(by_class.get(name, ())) for name in names]
    return paths, np.repeat(np.arange(len(names), dtype=np.int64), counts)


def _top(tree: Tree) -> str:
    """The folder whose children are classes or splits: steps into a single one that wraps them.

    A folder that is all there is counts as a wrapper where folders hold the images inside it: a set
    of a single class would be no use, so nothing is lost.
    """
    top = ""
    while (
        len(children := tree.children(top)) == 1
        and children[0] not in _SPLITS
        and tree.children(_under(top, children[0]))
        and len(tree.images(top)) == len(tree.images(_under(top, children[0])))
    ):
        top = _under(top, children[0])
    return top


def _under(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
