"""What a network is trained on: splits, labels of tasks, batches; and what is refused."""

from itertools import chain
from typing import Any

import numpy as np
import pytest

from taskdisc.config import settings_from
from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import ImageSet, load_images
from taskdisc.mtl.config import TaskSettings
from taskdisc.mtl.data import Batches, InOrder, Split, split_of, tasks_of
from taskdisc.mtl.tasks import Task


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """All 1,797 digits."""
    return load_images("digits", cache=False)


def of(images: ImageSet, split: Split | None = None, **tasks: dict[str, Any]) -> list[Task]:
    """The tasks with these settings, by name."""
    settings = {name: settings_from(TaskSettings, task) for name, task in tasks.items()}
    return tasks_of(images, settings, split or split_of(len(images), 0.1, 0.1, 0), 0)


def test_a_split_is_a_division_that_follows_from_its_seed() -> None:
    split = split_of(100, 0.2, 0.3, 0)
    parts = (split.train, split.validation, split.test)
    assert [len(part) for part in parts] == [50, 20, 30]
    assert sorted(np.concatenate(parts)) == list(range(100))
    assert np.array_equal(split.train, split_of(100, 0.2, 0.3, 0).train)
    assert not np.array_equal(split.train, split_of(100, 0.2, 0.3, 1).train)


def test_a_given_test_split_is_left_as_it_is() -> None:
    split = split_of(100, 0.2, 0.3, 0, given_test=40)
    assert split.test.tolist() == list(range(60, 100))
    assert (len(split.train), len(split.validation)) == (48, 12)


@pytest.mark.parametrize(("n", "validation", "test"), [(3, 0.1, 0.4), (4, 0.5, 0.6), (3, 0.4, 0.1)])
def test_a_split_with_an_empty_part_is_refused(n: int, validation: float, test: float) -> None:
    with pytest.raises(ImageSetError, match="there must be images to"):
        split_of(n, validation, test, 0)


def test_labels_of_each_kind(images: ImageSet) -> None:
    digit = images.targets["digit"]
    split = split_of(len(images), 0.1, 0.1, 0)
    classes, odd, several, value, bright = of(
        images,
        split,
        classes={"kind": "classification", "of": "digit"},
        odd={"kind": "binary", "of": "digit", "positives": ["1", "3", "5", "7", "9"]},
        several={"kind": "regression", "of": ["digit", "bright"]},
        value={"kind": "regression", "of": "digit"},
        bright={"kind": "regression", "of": "bright"},
    )
    assert classes.n_outputs == 10 and np.array_equal(classes.labels, digit)
    assert odd.n_outputs == 1 and np.array_equal(odd.labels[:, 0], digit % 2)
    assert several.n_outputs == 2
    np.testing.assert_allclose(several.labels, np.hstack([value.labels, bright.labels]))
    np.testing.assert_allclose(np.corrcoef(value.labels[:, 0], digit)[0, 1], 1)
    assert value.labels[split.train].mean() == pytest.approx(0, abs=1e-6)
    assert value.labels[split.train].std() == pytest.approx(1, abs=1e-6)


def test_labels_that_are_kept_are_even_over_classes(images: ImageSet) -> None:
    split = split_of(len(images), 0.1, 0.1, 0)
    task = {"kind": "classification", "of": "digit"}
    whole, few = of(images, split, whole=task, few={**task, "labelled": 45})
    known = few.known[split.train]
    assert known.sum() == 45
    counts = np.bincount(few.labels[split.train][known], minlength=10)
    assert set(counts) == {4, 5}
    assert np.array_equal(few.labels[split.test], whole.labels[split.test])


def test_few_labels_are_few_of_the_validation_images_too(images: ImageSet) -> None:
    split = split_of(len(images), 0.2, 0.2, 0)  # as many validate as a third of those that train
    task = {"kind": "classification", "of": "digit"}
    bounds: list[tuple[dict[str, int], int, int]] = [
        ({"labelled": 45}, 45, 15),
        ({"labelled": 1}, 1, 1),
        ({"labelled": 45, "labelled_validation": 0}, 45, 0),
        ({"labelled": 45, "labelled_validation": 100}, 45, 100),
        ({"labelled_validation": 20}, len(split.train), 20),
    ]
    for bound, n_train, n_validation in bounds:
        (few,) = of(images, split, few={**task, **bound})
        assert few.known[split.train].sum() == n_train
        assert few.known[split.validation].sum() == n_validation
        assert few.known[split.test].all()


def test_hidden_labels_of_a_regression_leave_no_trace(images: ImageSet) -> None:
    split = split_of(len(images), 0.1, 0.1, 0)
    (few,) = of(images, split, few={"kind": "regression", "of": "bright", "labelled": 30})
    kept = few.labels[split.train][few.known[split.train]]
    assert len(kept) == 30
    assert kept.mean() == pytest.approx(0, abs=1e-5) and kept.std() == pytest.approx(1, abs=1e-5)
    assert few.labels.dtype == np.float32


def test_labels_may_be_of_some_classes_alone(images: ImageSet) -> None:
    split = split_of(len(images), 0.1, 0.1, 0)
    digits = images.targets["digit"]
    each = {"kind": "binary", "of": "digit", "positives": "3", "among": ["3", "5"]}
    two, few = of(images, split, two=each, few={**each, "labelled": 10})
    assert np.array_equal(two.known, np.isin(digits, [3, 5]))
    assert np.array_equal(two.labels[two.known, 0], digits[two.known] == 3)
    kept = few.known[split.train]
    assert kept.sum() == 10 and few.labels[split.train][kept].sum() == 5


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"kind": "classification", "of": "colour"},
            "`of` of task 't' must be a target of 'digits'",
        ),
        ({"kind": "multi-label", "of": "digit"}, "`of` of task 't' must be targets of two classes"),
        ({"kind": "binary", "of": "digit"}, "`positives` of task 't' must name the classes"),
        (
            {"kind": "binary", "of": "digit", "positives": ["eleven"]},
            "`positives` of task 't' must be classes of 'digit', got 'eleven'",
        ),
        (
            {"kind": "binary", "of": "digit", "positives": list("0123456789")},
            "task 't' must have at least two classes among its training images, got one",
        ),
        ({"kind": "regression", "of": "red"}, "task 't' must have different values among"),
        ({"kind": "regression", "of": "rod"}, "`of` of task 't' must be a measure of pixels"),
        (
            {"kind": "classification", "of": "digit", "labelled": 2000},
            "`labelled` of task 't' must be at most the 1437 training images that have a "
            "label, got 2000",
        ),
        ({"kind": "classification", "of": ["digit", "bright"]}, "`of` must be one target"),
        (
            {"kind": "regression", "of": "bright", "positives": ["1"]},
            "`positives` must be left out of a task of kind regression, got 1",
        ),
        (
            {"kind": "regression", "of": "bright", "metric": "accuracy"},
            "`metric` must be one that a task of kind regression takes, got 'accuracy'",
        ),
        (
            {"kind": "binary", "of": "digit", "metric": "acuracy"},
            "`metric` must be a known one and one that .* did you mean 'accuracy'",
        ),
        (
            {"kind": "classification", "of": "digit", "among": ["1", "ten"]},
            "`among` of task 't' must be classes of 'digit', got 'ten'",
        ),
        (
            {"kind": "classification", "of": "digit", "among": ["1"]},
            "task 't' must have at least two classes among its training images",
        ),
        (
            {"kind": "regression", "of": "bright", "among": ["1"]},
            "`among` must be left out of a task of kind regression, got 1",
        ),
        (
            {"kind": "binary", "of": "digit", "also": ["lost"]},
            "`also` must be a known one and one that .* did you mean 'loss'",
        ),
    ],
)
def test_tasks_that_cannot_be(images: ImageSet, task: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        of(images, t=task)


def partly(known: np.ndarray) -> Task:
    """A task that knows some images."""
    labels = np.where(known, 1.0, np.nan).astype(np.float32)[:, None]
    return Task("t", "binary", labels, 1)


EVERY = partly(np.ones(100, dtype=bool))


def test_batches_hold_every_image_once_in_an_order_of_the_seed() -> None:
    positions = np.arange(100)[::-1].copy()
    batches = [b.tolist() for b in Batches(positions, [EVERY], 32, [0, 1])]
    assert sorted(chain.from_iterable(batches)) == list(range(100))
    assert [len(b) for b in batches] == [25, 25, 25, 25]
    assert batches == [b.tolist() for b in Batches(positions, [EVERY], 32, [0, 1])]
    assert batches != [b.tolist() for b in Batches(positions, [EVERY], 32, [0, 2])]


@pytest.mark.parametrize("n_known", [1, 3, 20, 60])
@pytest.mark.parametrize("batch", [1, 7, 32, 100, 1000])
def test_every_batch_has_a_label_of_every_task(n_known: int, batch: int) -> None:
    rng = np.random.default_rng(n_known)
    tasks = [EVERY, partly(rng.permutation(100) < n_known), partly(rng.permutation(100) < 5)]
    batches = list(Batches(np.arange(100), tasks, batch, [0]))
    for chosen in batches:
        assert all(task.known[chosen.numpy()].any() for task in tasks)
        assert len(chosen) <= batch + 2
    assert set(np.concatenate(batches)) == set(range(100))


def test_rare_labels_are_dealt_out_evenly() -> None:
    known = np.random.default_rng(0).permutation(100) < 30
    batches = Batches(np.arange(100), [EVERY, partly(known)], 10, [0])
    assert {int(known[b.numpy()].sum()) for b in batches} == {3}


MAIN = np.random.default_rng(1).permutation(100) < 12


@pytest.mark.parametrize("others", [[], [EVERY], [partly(~MAIN)]])
@pytest.mark.parametrize(("batch", "share"), [(20, 0.25), (7, 0.5), (40, 0.01), (10, 1.0)])
def test_a_share_of_every_batch_is_of_the_main_task(
    others: list[Task], batch: int, share: float
) -> None:
    tasks = [*others, partly(MAIN)]
    batches = [
        b.numpy()
        for b in Batches(np.arange(100), tasks, batch, [0], main=len(others), main_share=share)
    ]
    assert len(batches) == -(-100 // batch)  # as many steps whatever the tasks know
    n_main = max(1, round(share * batch)) if others else batch
    for chosen in batches:
        assert len(chosen) == batch and MAIN[chosen[:n_main]].all()
    counts = np.bincount(np.concatenate([b[:n_main] for b in batches]), minlength=100)[MAIN]
    assert np.ptp(counts) <= 1  # all once before any comes again
    if others:
        rest = np.concatenate([b[n_main:] for b in batches])
        assert np.ptp(np.bincount(rest, minlength=100)[others[0].known]) <= 1


@pytest.mark.parametrize("world", [2, 3])
def test_devices_get_batches_of_their_own(world: int) -> None:
    parts = [list(Batches(np.arange(100), [EVERY], 15, [0], rank, world)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1  # none waits for another
    assert sorted(np.concatenate(list(chain.from_iterable(parts)))) == list(range(100))


@pytest.mark.parametrize(("n", "batch", "world"), [(5, 1, 2), (7, 2, 3), (4, 1, 4), (3, 9, 2)])
def test_no_device_waits_for_another_where_images_are_few(n: int, batch: int, world: int) -> None:
    parts = [list(Batches(np.arange(n), [EVERY], batch, [0], rank, world)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(np.concatenate(list(chain.from_iterable(parts)))) == list(range(n))


def test_images_in_order() -> None:
    batches = InOrder(np.arange(10), 4)
    assert [b.tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(batches) == 3
