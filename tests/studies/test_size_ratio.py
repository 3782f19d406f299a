from typing import Any

import numpy as np
import pytest

from taskdisc.config import settings_from
from taskdisc.errors import SettingError
from taskdisc.studies.run import study
from taskdisc.studies.size_ratio import STUDY, SizeRatioSettings, boundary, normal_quantile

SMALL: dict[str, Any] = {
    "sizes": [20, 40],
    "ratios": [1, 3, 9],
    "n_seeds": 3,
    "protocol": {"name": "stratified", "n_splits": 2, "n_steps": 5},
}


def test_a_row_for_every_size_and_ratio_with_enough_positives() -> None:
    answer = study("size-ratio", jobs=1, **SMALL)
    rows = [(row["n_images"], row["ratio"], row["n_positives"]) for row in answer.table]
    assert rows == [(20, 1, 10), (20, 3, 5), (40, 1, 20), (40, 3, 10)]  # 40 at 1:9: only 4
    for row in answer.table:
        assert row["n_seeds"] == row["n_random"] == 3
        assert 0 <= row["share_above"] <= 1
        assert row["threshold"] == pytest.approx(
            row["random_mean"] + 1.645 * row["random_sd"], 1e-3
        )
    assert "The source work finds generalisation lost beyond 1:19 at 400 images" in answer.reading
    assert list(answer.plots) == ["size-ratio"]


def test_the_largest_sets_come_first() -> None:
    cells = STUDY.cells(settings_from(SizeRatioSettings, SMALL))
    sizes = [cell["n_images"] for cell in cells]
    assert sizes == sorted(sizes, reverse=True) and len(cells) == 4 * 3


def test_the_boundary_is_the_largest_ratio_above_the_threshold() -> None:
    rows = [
        {"ratio": ratio, "taskness_mean": taskness, "threshold": 0.1}
        for ratio, taskness in ((1, 0.5), (4, 0.05), (9, 0.2), (19, 0.1))
    ]
    assert boundary(rows) == 9
    assert boundary(rows[1:2]) is None


def test_the_normal_quantile_is_that_of_many_draws() -> None:
    draws = np.random.default_rng(0).normal(0.02, 0.03, 100_000)
    assert normal_quantile(draws, 0.95) == pytest.approx(np.quantile(draws, 0.95), abs=5e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_seeds": 2}, "`n_seeds` times `n_random` must be at least 3"),
        ({"sizes": [20], "ratios": [9]}, "`sizes` must leave some `ratios`"),
        ({"images": {"n_images": 30}}, "`images.n_images` must be left out"),
        ({"images": {"per_class": 3}}, "`images.per_class` must be left out"),
        ({"ratios": [0]}, "`ratios.0` must be"),
        ({"sizes": []}, "`sizes`"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        study("size-ratio", jobs=1, **{**SMALL, **changes})
