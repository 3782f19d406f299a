import numpy as np
import pytest

from taskdisc.discovery.classes import best_class, match_text, recovered
from taskdisc.images import ImageSet

NAMES = ["ant", "bee", "cow"]


def labeling(positives: list[int], n_images: int) -> np.ndarray:
    labels = np.zeros(n_images, np.uint8)
    labels[positives] = 1
    return labels


@pytest.mark.parametrize(
    ("positives", "expected"),
    [
        ([0, 1, 2, 3, 4], ("ant", 5, 1.0, True)),
        ([0, 1, 2, 3, 9], ("ant", 4, 0.8, True)),  # 80 % is enough
        ([0, 1, 2, 9, 10], ("ant", 3, 0.6, False)),
        ([0, 1, 5, 6, 10], ("ant", 2, 0.4, False)),  # of equals the first
        ([10, 11, 12, 13, 14], ("cow", 5, 1.0, True)),
    ],
)
def test_the_best_class_is_that_of_most_positives(
    positives: list[int], expected: tuple[str, int, float, bool]
) -> None:
    numbers = np.repeat([0, 1, 2], 5)
    match = best_class(labeling(positives, 15), numbers, NAMES)
    assert (match["class"], match["shared"], match["share"], match["recovered"]) == expected
    assert not match["flipped"]


def test_at_one_to_one_the_flip_is_the_same_task() -> None:
    numbers = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    own = labeling([0, 1, 2, 3], 8)
    expected = {"class": "ant", "shared": 4, "share": 1.0, "recovered": True}
    assert best_class(own, numbers, NAMES) == {**expected, "flipped": False}
    assert best_class(1 - own, numbers, NAMES) == {**expected, "flipped": True}
    # At another ratio it is another task.
    flip = best_class(1 - labeling([0, 1, 2], 8), numbers, NAMES)
    assert (flip["class"], flip["shared"], flip["flipped"]) == ("bee", 2, False)


def test_what_nearly_all_images_are_of_is_never_recovered() -> None:
    numbers = np.array([0] * 8 + [1] * 2)
    match = best_class(labeling([0, 1], 10), numbers, NAMES)
    assert (match["class"], match["share"], match["recovered"]) == ("ant", 1.0, False)
    assert best_class(labeling([8, 9], 10), numbers, NAMES)["recovered"]


def test_classes_are_counted_once_and_for_tasks() -> None:
    numbers = np.repeat([0, 1, 3], 5)
    images = ImageSet(
        "array",
        np.zeros((15, 2, 2, 3), np.uint8),
        {"kind": numbers},
        {"kind": [*NAMES, "dog"]},
    )
    rows = [([11, 12, 13], True), ([0, 1, 2], True), ([0, 1, 3], True), ([5, 6, 7], False)]
    tasks = [
        {
            "is_task": is_task,
            "match": {"kind": best_class(labeling(p, 15), numbers, images.classes["kind"])},
        }
        for p, is_task in rows
    ]
    assert recovered(tasks, images) == {
        "kind": {"classes": ["ant", "dog"], "n_classes": 3, "n_by_candidates": 3}
    }
    assert recovered([], images)["kind"] == {"classes": [], "n_classes": 3, "n_by_candidates": 0}


def test_a_match_in_a_few_letters() -> None:
    match = best_class(labeling([0, 1, 2, 3, 9], 15), np.repeat([0, 1, 2], 5), NAMES)
    assert match_text(match, 5) == "ant (4 of 5)"
