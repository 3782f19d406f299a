from typing import Any

import pytest

from taskdisc.config import settings_from
from taskdisc.errors import SettingError
from taskdisc.studies.run import study
from taskdisc.studies.size_ratio import STUDY, SizeRatioSettings, boundary

SMALL: dict[str, Any] = {
    "sizes": [20, 40],
    "ratios": [1, 3, 9],
    "n_seeds": 3,
    "protocol": {"name": "stratified", "n_splits": 2, "n_steps": 5, "most_images": 0},
}


def test_a_row_for_every_size_and_ratio_with_enough_positives() -> None:
    answer = study("size-ratio", jobs=1, **SMALL)
    rows = [(row["n_images"], row["ratio"], row["n_positives"]) for row in answer.table]
    assert rows == [(20, 1, 10), (20, 3, 5), (40, 1, 20), (40, 3, 10)]  # 40 at 1:9: only 4
    for row in answer.table:
        assert row["n_seeds"] == row["n_random"] == 3
        assert 0 <= row["share_above"] <= 1
        # t of 2 degrees of freedom, and the error of the mean of three.
        above = 2.919986 * (4 / 3) ** 0.5 * row["random_sd"]
        assert row["threshold"] == pytest.approx(row["random_mean"] + above)
    assert "The source work finds generalisation lost beyond 1:19 at 400 images" in answer.reading
    assert list(answer.plots) == ["size-ratio"]


def test_the_largest_sets_come_first() -> None:
    cells = STUDY.cells(settings_from(SizeRatioSettings, SMALL))
    sizes = [cell["n_images"] for cell in cells]
    assert sizes == sorted(sizes, reverse=True) and len(cells) == 4 * 3


def test_the_boundary_ends_where_taskness_is_not_above_for_the_first_time() -> None:
    rows = [
        {"ratio": ratio, "verdict": verdict}
        for ratio, verdict in ((1, "above"), (4, "above"), (9, "undecided"), (19, "above"))
    ]
    assert boundary(rows) == 4
    assert boundary(rows[2:]) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_seeds": 2}, "`n_seeds` times `n_random` must be at least 3"),
        ({"sizes": [20], "ratios": [9]}, "`sizes` must leave some `ratios`"),
        ({"images": {"n_images": 30}}, "`images.n_images` must be left out"),
        ({"images": {"per_class": 3}}, "`images.per_class` must be left out"),
        ({"protocol": "source"}, "`protocol.splits` must be stratified"),
        ({"sizes": [400], "protocol": "stratified"}, "`protocol.most_images` must be 0"),
        ({"ratios": [0]}, "`ratios.0` must be"),
        ({"sizes": []}, "`sizes`"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        study("size-ratio", jobs=1, **{**SMALL, **changes})
