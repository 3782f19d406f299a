"""The studies that compare closed forms and searches, on tiny settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.studies import STUDIES
from taskdisc.studies.closed_form import ClosedFormStudySettings
from taskdisc.studies.run import study
from taskdisc.studies.search_comparison import ComparisonSettings

IMAGES = {"n_classes": 5, "per_class": 4}
CLOSED_FORM: dict[str, Any] = {
    "images": IMAGES,
    "n_random": 5,
    "n_components": 3,
    "n_swapped": 5,
    "trainings": 5,
    "kernels": ["linear", "linear+rbf"],
    "ridges": [1, 30],
    "image_seeds": [0, 1],
}
SHORT = {"n_steps": 5, "n_splits": 5}
COMPARISON: dict[str, Any] = {
    "images": IMAGES,
    "image_seeds": [0, 1],
    "n_random": 3,
    "n_splits": 4,
    "searches": {
        "swap": {"budget": 10, "closed_form": {"kernel": "rbf"}, "tasks": 1},
        "drawn": {"budget": 3, "proposer": "random", "scorer": "trained", "protocol": SHORT},
    },
}


def test_closed_forms_are_compared_per_image_set_kernel_and_ridge() -> None:
    answer = study("closed-form", jobs=1, **CLOSED_FORM)
    assert [(row["images_seed"], row["kernel"], row["ridge"]) for row in answer.table] == [
        (seed, kernel, ridge)
        for seed in (0, 1)
        for kernel in ("linear", "linear+rbf")
        for ridge in (1, 30)
    ]
    for row in answer.table:
        assert set(row) == set(answer.table[0])
        assert all(-1 <= row[name] <= 1 for name in ("spearman", "pearson", "on_splits"))
        assert row["spearman_sd"] > 0
        assert 10 < row["n_labelings"] <= 5 + 3 + 5 + 5
    means = {
        (kernel, ridge): np.mean(
            [r["spearman"] for r in answer.table if (r["kernel"], r["ridge"]) == (kernel, ridge)]
        )
        for kernel in ("linear", "linear+rbf")
        for ridge in (1, 30)
    }
    (kernel, ridge), best = max(means.items(), key=lambda item: item[1])
    assert f"Of 4 closed forms, '{kernel}' at ridge {ridge} agrees best" in answer.reading
    assert f"Spearman {best:.3f} on average" in answer.reading
    assert list(answer.plots) == ["closed-form"]
    again = study("closed-form", jobs=1, **CLOSED_FORM)
    assert repr(again.table) == repr(answer.table)


def test_searches_are_compared_on_the_same_images() -> None:
    answer = study("search-comparison", jobs=1, **COMPARISON)
    assert [(row["search"], row["images_seed"]) for row in answer.table] == [
        (name, seed) for seed in (0, 1) for name in ("swap", "drawn")
    ]
    for row in answer.table:
        assert list(row) == list(answer.table[0])
        assert len(row["positives"].split()) == 4
        assert 1 <= row["labelings"] <= {"swap": 10, "drawn": 3}[row["search"]]
        assert row["random_sd"] > 0
    for name in ("swap", "drawn"):
        mean = np.mean([row["confirmed"] for row in answer.table if row["search"] == name])
        assert f"'{name}' finds labelings of confirmed taskness {mean:.3f} (s.d. " in answer.reading
    assert answer.reading.startswith("Over 2 image sets: ")
    assert list(answer.plots) == ["searches"]
    again = study("search-comparison", jobs=1, **COMPARISON)
    tables = [
        [{name: row[name] for name in row if name != "seconds"} for row in a.table]
        for a in (answer, again)
    ]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (ClosedFormStudySettings, {"trainings": 1}, "`trainings` must be .* 2, got 1"),
        (ClosedFormStudySettings, {"ridges": [0]}, "`ridges.0` must be greater than 0"),
        (ClosedFormStudySettings, {"kernels": []}, "`kernels`"),
        (ClosedFormStudySettings, {"image_seeds": [-1]}, "`image_seeds.0` must be"),
        (ComparisonSettings, {"searches": {}}, "`searches`"),
        (ComparisonSettings, {"searches": {"a": {"budgt": 1}}}, "a.budgt` .* 'searches.a.budget'"),
        (
            ComparisonSettings,
            {"searches": {"a": {"closed_form": {"rigde": 1}}}},
            "`searches.a.closed_form.rigde` is not .* 'searches.a.closed_form.ridge'",
        ),
        (
            ComparisonSettings,
            {"searches": {"a": {"ratio": 1}, "b": {}}},
            "`searches` must have one ratio, .* got 1, 4",
        ),
    ],
)
def test_bad_settings(kind: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        settings_from(kind, changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "configs/studies").glob("*")))
def test_committed_settings_are_valid(path: Path) -> None:
    name = next(
        name for name in sorted(STUDIES, key=len, reverse=True) if path.stem.startswith(name)
    )
    settings = read_settings(STUDIES[name].settings, path)
    assert isinstance(settings, STUDIES[name].settings)
