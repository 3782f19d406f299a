"""The 1,797 handwritten digits that come with scikit-learn: nothing to download."""

import numpy as np

from taskdisc.errors import SettingError
from taskdisc.images.image_set import ImageSet, as_image_set
from taskdisc.images.request import Request

_SIDE = 32  # what the LeNet of the source work takes


def load(request: Request) -> ImageSet:
    """All digits, 8 x 8 grey from 0 to 16, as smooth colour images with the target `digit`.

    Source: UCI ML hand-written digits, test part, as in `sklearn.datasets.load_digits`. There is no
    division of its own, so the split ``train`` (or ``all``) is all of it.
    """
    request.check_split(("train", "all"), "scikit-learn's digits have no division, take all")
    if request.root is not None:
        raise SettingError(
            f"`root` must be left out for 'digits', got '{request.root}': they come with "
            "scikit-learn; for images of your own use the source 'folder' or 'arrays'."
        )
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    found = as_image_set(grey)
    side = request.side(_SIDE)
    return ImageSet(
        source=request.source,
        images=(found if side is None else found.resized(side)).images,
        targets={"digit": data.target.astype(np.int64)},
        classes={"digit": [str(digit) for digit in range(10)]},
    )
