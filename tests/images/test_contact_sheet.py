import json

import numpy as np
import pytest

from taskdisc.errors import SettingError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.images.contact_sheet import class_sheet, contact_sheet, summary


def test_every_image_is_on_the_sheet() -> None:
    images = np.full((5, 4, 6, 3), 7, np.uint8)
    sheet = contact_sheet(images, columns=3, scale=2)
    assert sheet.shape == (2 * (8 + 2) + 2, 3 * (12 + 2) + 2, 3)
    assert (sheet == 7).sum() == images.size * 4
    with pytest.raises(SettingError, match="`columns` must be at least 1"):
        contact_sheet(images, columns=0)


def test_class_sheet_has_a_row_for_each_class_with_images() -> None:
    labels = np.array([0, 0, 0, 2, 2])
    images = np.zeros((5, 32, 32, 3), np.uint8)
    names = ["apple", "none of these", "a name so long that it would leave no room at all"]
    some = ImageSet("array", images, {"kind": labels}, {"kind": names})
    sheet = np.asarray(class_sheet(some, per_class=2))
    assert sheet.shape[0] == 2 * (64 + 4)
    margin = sheet.shape[1] - (2 * 66 + 2)
    assert sheet[:68, :margin].min() < 128
    assert class_sheet(some, per_class=2, max_classes=1).height == 68
    assert class_sheet(as_image_set(images), per_class=2).size == (134, 3 * 68)


def test_summary_is_json() -> None:
    some = ImageSet(
        "array", np.zeros((3, 8, 8, 3), np.uint8), {"k": np.array([0, 2, 2])}, {"k": list("abc")}
    )
    assert json.loads(json.dumps(summary(some))) == {
        "source": "array",
        "count": 3,
        "shape": [8, 8, 3],
        "targets": {"k": {"a": 1, "b": 0, "c": 2}},
    }
