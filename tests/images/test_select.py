from typing import Any

import numpy as np
import pytest

from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import ImageSet, as_image_set, select

COUNTS = {"ant": 6, "bee": 6, "cat": 6, "dog": 6, "eel": 2}


@pytest.fixture
def animals() -> ImageSet:
    labels = np.repeat(np.arange(5), list(COUNTS.values()))
    labels = np.random.default_rng(1).permutation(labels)
    images = np.zeros((len(labels), 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return ImageSet(
        "array",
        images,
        {"kind": labels, "legs": labels % 2},
        {"kind": list(COUNTS), "legs": ["few", "many"]},
    )


def test_class_a_comes_first_and_classes_are_grouped(animals: ImageSet) -> None:
    for seed in range(5):
        drawn = select(animals, class_a="cat", n_classes=3, per_class=4, seed=seed)
        labels = drawn.targets["kind"].reshape(3, 4)
        assert (labels == labels[:, :1]).all()
        assert labels[0, 0] == 2
        assert len(set(labels[:, 0].tolist())) == 3
        assert len(set(drawn.indices.tolist())) == 12
        assert np.array_equal(drawn.images, animals.images[drawn.indices])


def test_the_seed_decides(animals: ImageSet) -> None:
    def draw(seed: int) -> list[int]:
        return list(select(animals, n_classes=2, per_class=3, seed=seed).indices)

    assert draw(3) == draw(3)
    assert len({tuple(draw(seed)) for seed in range(10)}) > 5


def test_classes_too_small_are_never_drawn(animals: ImageSet) -> None:
    drawn = [select(animals, n_classes=1, per_class=3, seed=seed) for seed in range(30)]
    assert {int(d.targets["kind"][0]) for d in drawn} == {0, 1, 2, 3}
    assert len(select(animals, per_class=3)) == 12
    assert len(select(animals, target="legs", per_class=12)) == 24


def test_any_images(animals: ImageSet) -> None:
    drawn = select(animals, n_images=7, seed=1)
    assert len(set(drawn.indices.tolist())) == 7
    assert len(select(animals, n_images=26)) == 26
    assert select(animals).indices.tolist() == list(range(26))
    assert len(select(as_image_set(animals.images), n_images=2)) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"class_a": "cats", "per_class": 2}, "did you mean 'cat'"),
        ({"target": "kin", "per_class": 2}, "did you mean 'kind'"),
        ({"class_a": "eel", "per_class": 3}, "at most 2, the images of class 'eel', got 3"),
        ({"n_classes": 5, "per_class": 3}, "at most 4, .* got 5: class 'eel' has 2"),
        ({"n_classes": 6, "per_class": 2}, "at most 5, .* got 6: 'kind' has no more"),
        ({"per_class": 7}, "at most 6, .* largest class 'ant', got 7"),
        ({"n_images": 27}, "`n_images` must be at most 26"),
        ({"n_images": 5, "per_class": 2}, "`n_images` must be left out where `per_class`"),
        ({"n_classes": 3}, "`per_class` must be set where `n_classes`"),
        ({"n_classes": 0, "per_class": 2}, "`n_classes` must be a whole number of at least 1"),
        ({"per_class": 2.0}, "`per_class` must be a whole number"),
        ({"n_images": True}, "`n_images` must be a whole number"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0"),
    ],
)
def test_what_cannot_be_drawn(animals: ImageSet, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((SettingError, ImageSetError), match=words):
        select(animals, **settings)
