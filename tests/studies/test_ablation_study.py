from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.labelings import ablation
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.ablation import (
    AblationSettings,
    ablated,
    answer,
    cells,
    measure,
    tolerance,
)
from taskdisc.studies.images import drawn
from taskdisc.studies.run import measure_cells
from taskdisc.taskness.score import score

SMALL: dict[str, Any] = {
    "images": {"n_classes": 3, "per_class": 5},
    "ablations": [0, 0.4, 1],
    "n_random": 5,
    "n_seeds": 2,
    "protocol": {"n_splits": 5, "n_steps": 6, "most_images": 0},
}
POOL = Pool(1, "cpu")
CONFIGS = Path(__file__).parents[2] / "configs" / "studies"


def settings_with(**changes: Any) -> AblationSettings:
    return settings_from(AblationSettings, {**SMALL, **changes})


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
def test_ablated_labelings_are_at_that_ablation_and_keep_the_ratio(share: float) -> None:
    labeling = np.repeat([1, 0], [20, 60]).astype(np.uint8)
    wrong = ablated(labeling, share, np.random.default_rng(0))
    assert wrong.sum() == 20
    assert ablation(labeling, wrong) == pytest.approx(share)
    again = ablated(labeling, share, np.random.default_rng(1))
    assert (share == 0) == np.array_equal(wrong, again)


def test_a_higher_ablation_keeps_the_wrong_labels_of_a_lower() -> None:
    labeling = np.repeat([1, 0], [20, 60]).astype(np.uint8)
    low, high = (ablated(labeling, share, np.random.default_rng(3)) for share in (0.3, 0.7))
    assert (high[low != labeling] != labeling[low != labeling]).all()


@pytest.mark.parametrize(
    ("taskness", "expected"),
    [
        ([0.5, 0.3, 0.1, 0.0], 0.25),  # linear between 0.2 and 0.4
        ([0.5, 0.3, 0.2, 0.0], 0.2),  # touches T_task there
        ([0.5, 0.1, 0.4, 0.0], 0.15),  # what comes back later does not count
        ([0.2, 0.9, 0.9, 0.9], 0.0),  # no task with the right labels either
        ([0.9, 0.8, 0.7, 0.6], 1.0),  # never falls
    ],
)
def test_tolerance(taskness: list[float], expected: float) -> None:
    levels = np.array([0, 0.2, 0.4, 1.0]) if expected != 0.2 else np.array([0, 0.1, 0.2, 1.0])
    threshold = 0.25 if expected == 0.25 else 0.2
    assert tolerance(levels, np.array(taskness), threshold) == pytest.approx(expected)


def test_nothing_ablated_is_the_class_labeling_itself() -> None:
    settings = settings_with()
    record = measure(settings, {"seed": 1, "ablation": 0.0}, POOL, Progress())
    images = drawn(settings.images, seed=1)
    labeling = (np.arange(15) < 5).astype(np.uint8)
    scores = score(images, labeling, protocol=settings.protocol, seed=1, jobs=1, device="cpu")
    assert record["taskness"] == pytest.approx(scores.taskness.tolist())
    np.testing.assert_allclose(record["validation"], scores.validation[0].mean(axis=0), atol=1e-5)
    whole = measure(settings, {"seed": 1, "ablation": 1.0}, POOL, Progress())
    assert whole["taskness"] != record["taskness"]


def test_all_cells_make_an_answer_whose_rows_are_alike() -> None:
    settings = settings_with(n_draws=2)
    assert [cell["ablation"] for cell in cells(settings)][:2] == ["random", "random"]
    records = measure_cells("ablation", settings, POOL, Progress())
    assert [len(record["taskness"]) for record in records] == [5, 5, *[2] * 6]
    found = answer(settings, records)
    assert [row["ablation_percent"] for row in found.table][:3] == [0, 40, 100]
    assert found.table[-1]["labelings"] == "random"
    assert found.table[-1]["ablation_percent"] == pytest.approx(200 / 3)
    assert all(list(row) == list(found.table[0]) for row in found.table)
    assert list(found.plots) == ["taskness", "validation"]


def made_up(settings: AblationSettings, *taskness: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "seed": number,
            "ablation": name,
            "class": "a",
            "taskness": [value] * 5,
            "validation": [0.7, 0.6],
        }
        for number, values in enumerate(taskness)
        for name, value in zip(("random", *settings.ablations), [0.2, *values], strict=True)
    ]


@pytest.mark.parametrize(
    ("taskness", "words"),
    [
        (([0.6, 0.4, 0.0], [0.6, 0.5, 0.0]), "until 73.0 ± 3.0 %"),
        (([0.6, 0.4, 0.0], [0.6, 0.5, 0.0]), "above the tolerance of 20 % that the source work"),
        (([0.6, 0.0, 0.0], [0.1, 0.0, 0.0]), "until 13.3 ± 13.3 %"),
        (([0.6, 0.0, 0.0], [0.1, 0.0, 0.0]), "not to be told from the tolerance of 20 %"),
        (([0.6, 0.0, 0.0], [0.1, 0.0, 0.0]), "1 of the classes are no task with the right labels"),
        (([0.6, 0.5, 0.4], [0.6, 0.5, 0.4]), "2 are still a task at 100 %"),
    ],
)
def test_the_reading_follows_the_numbers(taskness: tuple[list[float], ...], words: str) -> None:
    settings = settings_with()
    from re import search

    assert search(words, answer(settings, made_up(settings, *taskness)).reading)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ablations": [0.1, 0.5]}, "`ablations` must begin with 0"),
        ({"ablations": [0, 0.5, 0.5]}, "`ablations` must begin with 0.* and rise"),
        ({"ablations": [0, 50]}, "`ablations.1`"),
        ({"images": {"n_classes": 2, "per_class": 5}}, "`images.n_classes` must be at least 3"),
        ({"images": {"per_class": 4}}, "`images.per_class` must be at least .* got 4"),
        ({"protocol": {"splitz": 3}}, "`protocol.splitz` is not a setting"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        cells(settings_with(**changes))


def test_committed_settings_are_valid() -> None:
    digits = read_settings(AblationSettings, CONFIGS / "ablation-digits.yaml")
    assert digits == AblationSettings()
    settings = read_settings(AblationSettings, CONFIGS / "ablation.yaml")
    assert len(cells(settings)) == settings.n_seeds * (1 + 11)
