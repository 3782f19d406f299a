from typing import Any

import numpy as np
import pytest

from taskdisc.errors import SettingError
from taskdisc.taskness.protocol import (
    PROTOCOLS,
    Protocol,
    n_repeats,
    protocol_from,
    validation_masks,
)


def masks_of(protocol: Protocol, labeling: np.ndarray, seed: int = 0) -> np.ndarray:
    rngs = [np.random.default_rng([seed, i]) for i in range(n_repeats(protocol))]
    return validation_masks(protocol, labeling, rngs)


@pytest.mark.parametrize(
    ("n_images", "n_pos", "n_folds"),
    [(50, 10, 5), (50, 25, 5), (20, 4, 5), (23, 7, 5), (7, 3, 2), (5, 1, 5), (12, 0, 4), (9, 9, 3)],
)
def test_stratified_folds_are_a_partition_with_equal_shares(
    n_images: int, n_pos: int, n_folds: int
) -> None:
    labeling = np.random.default_rng(1).permutation(np.arange(n_images) < n_pos).astype(np.uint8)
    protocol = Protocol(splits="stratified", n_splits=2 * n_folds, n_folds=n_folds)
    for masks in np.split(masks_of(protocol, labeling), 2):
        assert masks.dtype == bool
        assert (masks.sum(axis=0) == 1).all()
        for label in (0, 1):
            counts = masks[:, labeling == label].sum(axis=1)
            assert counts.max() - counts.min() <= 1
        assert np.ptp(masks.sum(axis=1)) <= 1


def test_repeats_draw_other_folds_and_the_last_may_be_cut() -> None:
    labeling = (np.arange(50) < 10).astype(np.uint8)
    protocol = Protocol(splits="stratified", n_splits=7, n_folds=5)
    assert n_repeats(protocol) == 2
    masks = masks_of(protocol, labeling)
    assert masks.shape == (7, 50)
    assert not (masks[0] == masks[5]).all()


@pytest.mark.parametrize(
    ("n_images", "n_folds", "n_validation"), [(50, 5, 10), (53, 5, 10), (3, 5, 1)]
)
def test_random_splits_have_their_size(n_images: int, n_folds: int, n_validation: int) -> None:
    protocol = Protocol(splits="random", n_splits=6, n_folds=n_folds)
    labeling = np.zeros(n_images, dtype=np.uint8)
    masks = masks_of(protocol, labeling)
    assert masks.shape == (6, n_images)
    assert (masks.sum(axis=1) == n_validation).all()
    assert len({mask.tobytes() for mask in masks}) > 1


def test_random_splits_pay_no_heed_to_the_labels() -> None:
    protocol = Protocol(splits="random", n_splits=3)
    a, b = np.zeros(20, dtype=np.uint8), np.ones(20, dtype=np.uint8)
    assert (masks_of(protocol, a) == masks_of(protocol, b)).all()


def test_the_same_generators_draw_the_same_splits_and_others_do_not() -> None:
    labeling = (np.arange(50) < 10).astype(np.uint8)
    for splits in ("stratified", "random"):
        protocol = Protocol(splits=splits, n_splits=5)
        assert (masks_of(protocol, labeling) == masks_of(protocol, labeling)).all()
        assert (masks_of(protocol, labeling) != masks_of(protocol, labeling, seed=1)).any()


def test_similar_labelings_have_similar_folds_under_one_order() -> None:
    labeling = (np.arange(50) < 10).astype(np.uint8)
    swapped = labeling.copy()
    swapped[[0, 49]] = 0, 1
    protocol = Protocol(splits="stratified", n_splits=5)
    moved = (masks_of(protocol, labeling) != masks_of(protocol, swapped)).any(axis=0).sum()
    others = (masks_of(protocol, labeling) != masks_of(protocol, labeling, 1)).any(axis=0).sum()
    assert moved < others


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_by_name(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol_from(name) == protocol
    assert protocol_from({"name": name}) == protocol
    assert protocol_from(protocol) is protocol
    changed = protocol_from({"name": name, "n_steps": 12, "lr": 1})
    assert (changed.n_steps, changed.lr, changed.splits) == (12, 1, protocol.splits)


def test_the_source_work_has_one_random_80_20_split_per_labeling() -> None:
    source = PROTOCOLS["source"]
    assert (source.splits, source.n_splits, source.n_folds, source.common) == (
        "random",
        1,
        5,
        False,
    )
    assert (source.n_steps, source.lr) == (100, 1e-3)


@pytest.mark.parametrize(
    ("most_images", "n_images", "used", "steps"),
    [
        (200, 50, 50, 20),
        (200, 200, 200, 40),
        (200, 5000, 200, 40),
        (0, 200, 200, 40),
        (0, 5000, 5000, 200),
        (50, 5000, 50, 20),
        (200, 5, 5, 10),
    ],
)
def test_images_and_steps_of_a_training(
    most_images: int, n_images: int, used: int, steps: int
) -> None:
    protocol = Protocol(most_images=most_images)
    assert (protocol.images(n_images), protocol.steps(n_images)) == (used, steps)
    assert Protocol(most_images=most_images, n_steps=33).steps(n_images) == 33


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("stratifed", r"`protocol` .* 'stratifed'; did you mean 'stratified'"),
        ("sauce", r"`protocol` .* did you mean 'source'"),
        ("?", r"`protocol` .* choose one of .*source.*stratified"),
        ({"name": "sorce"}, "did you mean 'source'"),
        ({"n_step": 5}, r"`protocol.n_step` .* did you mean 'n_steps'"),
        ({"splits": "randm"}, r"`protocol.splits` .* did you mean 'random'"),
        ({"n_steps": 4}, "`protocol.n_steps` must be at least 5"),
        ({"n_splits": 0}, "`protocol.n_splits` must be at least 1, got 0"),
        ({"most_images": -1}, "`protocol.most_images` must be at least 0, got -1"),
        ({"most_images": 4}, "`protocol.most_images` must be at least .* = 5, or 0 .*, got 4"),
        ({"n_folds": 9, "most_images": 8}, "`protocol.most_images` .* = 9, .* got 8"),
        ({"n_folds": 1}, "`protocol.n_folds` must be at least 2, got 1"),
        ({"lr": 0.0}, "`protocol.lr` must be above 0"),
        ({"lr": -1e-3}, "`protocol.lr` must be above 0"),
        ({"lr": float("nan")}, "`protocol.lr` must be"),
        ({"lr": float("inf")}, "`protocol.lr` must be"),
        ({"n_steps": "10"}, "`protocol.n_steps` must be of type int, got '10'"),
        ({"n_steps": 10.0}, "`protocol.n_steps` must be of type int"),
        ({"n_steps": True}, "`protocol.n_steps` must be of type int"),
        ({"common": 1}, "`protocol.common` must be of type bool"),
        ({"lr": True}, "`protocol.lr` must be of type float"),
        (5, "`protocol` must be a name or a mapping .* got 5"),
        (None, "`protocol` must be a name or a mapping"),
        ({"name": 5}, "`protocol`.* 5"),
        ({"name": ["source"]}, "`protocol`"),
        ({1: 2}, "`protocol.1`"),
    ],
)
def test_bad_values(value: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        protocol_from(value)
