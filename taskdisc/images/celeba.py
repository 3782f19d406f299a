"""CelebA: photographs of faces with 40 yes-or-no attributes."""

import numpy as np

from taskdisc.errors import ImageSetError
from taskdisc.images.decode import decode_files
from taskdisc.images.image_set import ImageSet
from taskdisc.images.request import Request
from taskdisc.images.tree import open_tree

_SIDE = 32  # 178 x 218 as published would be 19 GB decoded
_FOLDER = "celeba"
_SPLITS = {"train": "train", "val": "valid", "test": "test"}


def load(request: Request) -> ImageSet:
    """162,770 train, 19,867 val or 19,962 test faces; each attribute is a target of two classes.

    Source: Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015,
    http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, in torchvision's layout. Images are cut to
    their central square and resized to `size`, 32 by default. The classes of an attribute such as
    ``Smiling`` are ``not Smiling`` (0) and ``Smiling`` (1).
    """
    from torchvision.datasets import CelebA

    root = request.data_root
    if not (root / _FOLDER).is_dir() and not request.download:
        raise request.missing(f"the folder '{_FOLDER}'")
    try:
        data = CelebA(root, split=_SPLITS[request.split], download=request.download)
    except (RuntimeError, OSError) as error:
        if request.download:
            raise ImageSetError(
                f"'{request.source}' could not be downloaded to '{root}': {error}. Google Drive "
                "limits downloads: try again tomorrow, or fetch it by hand in torchvision's layout."
            ) from error
        raise ImageSetError(
            f"'{root / _FOLDER}' must hold CelebA's lists with their known checksums and the "
            "folder 'img_align_celeba', got missing or damaged ones; fetch them with --download."
        ) from error
    # The published header ends in a space, from which torchvision reads one more, empty name.
    names = [name for name in data.attr_names if name]
    attributes = data.attr.numpy().astype(np.int64)
    with open_tree(root / _FOLDER / "img_align_celeba") as tree:
        for path in data.filename:
            if path not in tree.files:
                raise ImageSetError(
                    f"'{tree.shown(path)}' must be an image of CelebA, got nothing there; "
                    "unpack img_align_celeba.zip anew."
                )
        images = decode_files(tree, data.filename, request, request.size or _SIDE)
    return ImageSet(
        source=request.source,
        images=images,
        targets={name: attributes[:, i].copy() for i, name in enumerate(names)},
        classes={name: [f"not {name}", name] for name in names},
    )
