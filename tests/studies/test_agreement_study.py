from typing import Any

import numpy as np
import pytest

from taskdisc.config import settings_from
from taskdisc.discovery.run import load_selected
from taskdisc.errors import SettingError
from taskdisc.labelings import key
from taskdisc.progress import Progress
from taskdisc.studies.agreement import AgreementStudySettings, class_labelings
from taskdisc.studies.run import study

SMALL: dict[str, Any] = {
    "images": {"n_classes": 4, "per_class": 5},
    "ratios": [1, 3],
    "n_found": 2,
    "n_class": 3,
    "search": {"proposer": "swap", "scorer": "closed-form", "budget": 5},
    "agreement": {"n_held_out": 20, "n_pairs": 2, "n_steps": 10, "n_random": 2},
}


def settings_with(**changes: Any) -> AgreementStudySettings:
    return settings_from(AgreementStudySettings, {**SMALL, **changes})


def test_a_row_for_every_kind_and_ratio() -> None:
    answer = study("agreement", jobs=1, **SMALL)
    assert [(row["ratio"], row["labelings"], row["n_labelings"]) for row in answer.table] == [
        ("1:1", "found", 2),
        ("1:1", "class", 3),
        ("1:1", "random", 2),
        ("1:3", "found", 2),
        ("1:3", "class", 3),
        ("1:3", "random", 2),
    ]
    assert {(row["n_images"], row["n_held_out"]) for row in answer.table} == {(20, 20)}
    assert "At 1:1 networks" in answer.reading
    assert list(answer.plots) == ["agreement"]


def test_class_labelings_are_different_unions_of_classes() -> None:
    settings = settings_with(n_class=50)
    images = load_selected(settings.images, Progress())
    digit = images.targets["digit"]
    for ratio, n_chosen, n in ((1, 2, 3), (3, 1, 4)):  # at 1:1 a flip is the same
        labelings = class_labelings(images, settings, ratio)
        assert len({key(labeling) for labeling in labelings}) == len(labelings) == n
        for labeling in labelings:
            assert len(np.unique(digit[labeling == 1])) == n_chosen
            assert labeling.sum() == 5 * n_chosen


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratios": [2]}, "multiple of `ratio`"),
        ({"search": {"budgt": 3}}, "`budgt` is not a setting"),
        ({"ratios": [9], "n_found": 0}, "`n_found` must be at least 1"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        study("agreement", jobs=1, **{**SMALL, **changes})
