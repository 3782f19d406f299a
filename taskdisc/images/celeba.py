"""CelebA: photographs of faces with 40 yes-or-no attributes."""

from collections import Counter
from pathlib import Path

import numpy as np

from taskdisc.errors import ImageSetError
from taskdisc.images.decode import count_of_other_shape, decode_files
from taskdisc.images.image_set import ImageSet
from taskdisc.images.request import Request
from taskdisc.images.tree import Tree, open_tree

HEIGHT, WIDTH = 218, 178
"""Of the published images, aligned and cropped."""

_SIDE = 32  # 178 x 218 as published is 24 GB decoded
_FOLDER = "celeba"
_IMAGES = "img_align_celeba"
_ATTRIBUTES = "list_attr_celeba.txt"
_PARTITION = "list_eval_partition.txt"
_SPLITS = {"train": "0", "val": "1", "test": "2"}


def load(request: Request) -> ImageSet:
    """162,770 train, 19,867 val or 19,962 test faces, or all 202,599; each attribute is a target.

    Source: Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015,
    http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html. Read are the published files, in the folder
    `celeba` as torchvision leaves them or in `root` itself: list_attr_celeba.txt,
    list_eval_partition.txt (not for the split ``all``) and the folder img_align_celeba or
    img_align_celeba.zip. Lists of fewer faces are a smaller set.

    Images are cut to their central square and resized to `size`, 32 by default. With ``own`` they
    keep their 178 x 218 pixels; those of another size are cut and resized to it, which `notes`
    says. The classes of an attribute such as ``Smiling`` are ``not Smiling`` (0) and ``Smiling``
    (1).
    """
    place = _place(request)
    with open_tree(place) as lists:
        names, faces, values = _attributes(lists)
        chosen = np.arange(len(faces))
        if request.split != "all":
            part = _partition(lists)
            chosen = np.array([i for i, f in enumerate(faces) if part.get(f) == request.split])
            _check_partition(lists, faces, part, len(chosen), request.split)
        packed = f"{_IMAGES}.zip"
        use_packed = _IMAGES not in lists.folders and packed in lists.files
        with open_tree(place / packed if use_packed else place) as tree:
            paths = [f"{_IMAGES}/{faces[i]}" for i in chosen]
            _check_there(tree, paths)
            side = request.side(_SIDE)
            images = decode_files(tree, paths, request, side or (HEIGHT, WIDTH))
            notes = () if side else _notes(tree, paths, request)
    return ImageSet(
        source=request.source,
        images=images,
        targets={name: values[chosen, i].astype(np.int64) for i, name in enumerate(names)},
        classes={name: [f"not {name}", name] for name in names},
        notes=notes,
    )


def _place(request: Request) -> Path:
    """The folder that holds the lists, downloaded where that was asked for."""
    root = request.data_root
    for folder in (root / _FOLDER, root):
        if (folder / _ATTRIBUTES).is_file():
            return folder
    if not request.download:
        raise request.missing(f"'{_FOLDER}/{_ATTRIBUTES}' and what belongs to it")
    from torchvision.datasets import CelebA

    try:
        CelebA(root, download=True)
    except (RuntimeError, OSError) as error:
        raise ImageSetError(
            f"'{request.source}' could not be downloaded to '{root}': {error}. Google Drive "
            "limits downloads: try again tomorrow, or fetch it by hand in torchvision's layout."
        ) from error
    return root / _FOLDER


def _attributes(tree: Tree) -> tuple[list[str], list[str], np.ndarray]:
    """Names of the attributes, of the faces, and their values, 0 or 1 [n_faces, n_attributes]."""
    shown = tree.shown(_ATTRIBUTES)
    lines = tree.text(_ATTRIBUTES).splitlines()
    # The published line of names ends in a space, and columns have one space or two between them.
    names = lines[1].split() if len(lines) > 1 else []
    if not names or len(set(names)) < len(names):
        raise ImageSetError(
            f"Line 2 of '{shown}' must name the attributes, each once, got {_named(names)}."
        )
    rows = [line for line in lines[2:] if line.strip()]
    if lines[0].strip() != str(len(rows)) or not rows:
        raise ImageSetError(
            f"Line 1 of '{shown}' must be the number of faces that the lines below have, got "
            f"{lines[0]!r} and {len(rows)} of them: the file is torn, or was cut without its "
            "first line being changed."
        )
    values = np.zeros((len(rows), len(names)), dtype=np.uint8)
    faces = []
    for number, line in enumerate(rows):
        row = line.split()
        if len(row) != len(names) + 1 or not set(row[1:]) <= {"1", "-1"}:
            raise ImageSetError(
                f"Every face in '{shown}' must have {len(names)} values, 1 or -1, got another row "
                f"for '{row[0]}': {_named(row[1:])}."
            )
        values[number] = [value == "1" for value in row[1:]]
        faces.append(row[0])
    twice = [face for face, count in Counter(faces).items() if count > 1]
    if twice:
        raise ImageSetError(f"Every face in '{shown}' must be there once, got '{twice[0]}' twice.")
    return names, faces, values


def _named(words: list[str]) -> str:
    """Words within a sentence: some of them, and how many there are."""
    if not words:
        return "nothing"
    return f"{' '.join(words[:8])}{' …' if len(words) > 8 else ''} ({len(words)})"


def _partition(tree: Tree) -> dict[str, str]:
    """The split of each face."""
    named = {number: split for split, number in _SPLITS.items()}
    part = {}
    for number, line in enumerate(tree.text(_PARTITION).splitlines(), start=1):
        fields = line.split()
        if fields and (len(fields) != 2 or fields[1] not in named):
            raise ImageSetError(
                f"Line {number} of '{tree.shown(_PARTITION)}' must be a face and 0, 1 or 2, for "
                f"train, val and test, got {line!r}."
            )
        if fields:
            part[fields[0]] = named[fields[1]]
    return part


def _check_partition(
    tree: Tree, faces: list[str], part: dict[str, str], n_chosen: int, split: str
) -> None:
    shown = tree.shown(_PARTITION)
    without = [face for face in faces if face not in part]
    if without:
        raise ImageSetError(
            f"'{shown}' must have the split of every face in {_ATTRIBUTES}, got none of "
            f"'{without[0]}' ({len(without):,} are missing)."
        )
    if not n_chosen:
        raise ImageSetError(
            f"'{shown}' must have faces of the split '{split}', got none; take another split."
        )


def _check_there(tree: Tree, paths: list[str]) -> None:
    missing = [path for path in paths if path not in tree.files]
    if missing:
        raise ImageSetError(
            f"'{tree.shown(missing[0])}' must be an image of CelebA, got nothing there "
            f"({len(missing):,} of {len(paths):,} are missing); unpack {_IMAGES}.zip anew, or "
            "leave them out of the lists."
        )


def _notes(tree: Tree, paths: list[str], request: Request) -> tuple[str, ...]:
    n_others = count_of_other_shape(tree, paths, request, HEIGHT, WIDTH)
    if not n_others:
        return ()
    return (
        f"{n_others:,} of {len(paths):,} images are not {WIDTH} x {HEIGHT} pixels, and were cut "
        "and resized to that",
    )
