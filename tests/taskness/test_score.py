import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from taskdisc.benches.score import gigaflop
from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import random_labelings
from taskdisc.pool import Pool
from taskdisc.taskness import score as score_module
from taskdisc.taskness.protocol import Protocol, protocol_from
from taskdisc.taskness.score import Scores, check_scorable, score

SHORT = {"n_steps": 15, "n_splits": 5}


def some_labelings(n: int, n_images: int = 50, n_pos: int = 10, seed: int = 0) -> np.ndarray:
    return random_labelings(n, n_images, n_pos, np.random.default_rng(seed))


def equal(a: Scores, b: Scores) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


@pytest.fixture(scope="module")
def scored(digits: ImageSet) -> tuple[np.ndarray, Scores]:
    labelings = some_labelings(7)
    return labelings, score(digits, labelings, protocol=SHORT, seed=3, jobs=1)


def test_shapes(scored: tuple[np.ndarray, Scores]) -> None:
    scores = scored[1]
    assert scores.per_split.shape == scores.baseline.shape == (7, 5)
    assert scores.training.shape == scores.validation.shape == (7, 5, 16)
    assert scores.taskness.shape == (7,)
    assert all(np.isfinite(values).all() for values in vars(scores).values())
    assert (scores.baseline > 0).all()
    assert (scores.per_split <= 1).all()


def test_classes_score_high_and_random_labelings_about_0(
    digits: ImageSet, class_labeling: np.ndarray
) -> None:
    labelings = np.stack([class_labeling, np.roll(class_labeling, 10), *some_labelings(8)])
    scores = score(digits, labelings, protocol={"n_splits": 5, "n_steps": 60}, jobs=1)
    classes, random = scores.taskness[:2], scores.taskness[2:]
    assert classes.min() > 0.5
    assert abs(random.mean()) < 0.2
    assert classes.min() > random.max() + 0.2
    # It learned by generalising, and the curves say so.
    assert (
        scores.validation[:2, :, -1].mean(axis=1) < scores.validation[:2, :, 0].mean(axis=1)
    ).all()


def test_images_without_information_score_0(class_labeling: np.ndarray) -> None:
    images = np.full((50, 32, 32, 3), 128, dtype=np.uint8)
    scores = score(images, class_labeling, protocol={"n_splits": 5, "n_steps": 60}, jobs=1)
    assert abs(scores.taskness[0]) < 0.1


@pytest.mark.parametrize("value", [0, 1])
def test_a_constant_labeling_has_taskness_0(digits: ImageSet, value: int) -> None:
    scores = score(digits, np.full(50, value), protocol=SHORT, jobs=1)
    assert np.array_equal(scores.per_split, np.zeros((1, 5)))
    assert np.isfinite(scores.baseline).all()


@pytest.mark.parametrize("splits", ["stratified", "random"])
def test_one_positive_is_scored_without_nan(digits: ImageSet, splits: str) -> None:
    labeling = (np.arange(50) == 13).astype(np.uint8)
    protocol = {**SHORT, "splits": splits, "n_splits": 5}
    scores = score(digits, labeling, protocol=protocol, jobs=1)
    assert np.isfinite(scores.per_split).all()
    if splits == "stratified":
        # The split whose train part lacks the class has nothing to learn.
        assert (scores.per_split == 0).sum() == 1


def test_two_processes_give_the_same_bits_as_none(
    digits: ImageSet, scored: tuple[np.ndarray, Scores]
) -> None:
    labelings, alone = scored
    assert equal(score(digits, labelings, protocol=SHORT, seed=3, jobs=2), alone)


def test_another_process_gives_the_same_bits(scored: tuple[np.ndarray, Scores]) -> None:
    script = """if True:
        import numpy as np
        from taskdisc import load_images, score, select
        from taskdisc.labelings import random_labelings
        digits = select(load_images("digits", cache=False), n_classes=5, per_class=10, seed=0)
        labelings = random_labelings(7, 50, 10, np.random.default_rng(0))
        scores = score(digits, labelings, protocol={"n_steps": 15, "n_splits": 5}, seed=3, jobs=1)
        print(scores.per_split.tobytes().hex())
    """
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    answer = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == scored[1].per_split.tobytes().hex()


@pytest.mark.parametrize("protocol", [SHORT, {"name": "source", "n_steps": 15}])
def test_a_labeling_scores_the_same_alone_and_in_any_company(
    digits: ImageSet, protocol: dict[str, Any]
) -> None:
    labelings = some_labelings(6)
    together = score(digits, labelings, protocol=protocol, jobs=1)
    backwards = score(digits, labelings[::-1], protocol=protocol, jobs=1)
    alone = score(digits, labelings[4], protocol=protocol, jobs=1)
    assert np.allclose(together.per_split, backwards.per_split[::-1], rtol=0, atol=1e-5)
    assert np.allclose(together.per_split[4], alone.per_split[0], rtol=0, atol=1e-5)


def test_seeds_differ(digits: ImageSet, scored: tuple[np.ndarray, Scores]) -> None:
    labelings, one = scored
    other = score(digits, labelings[:1], protocol=SHORT, seed=4, jobs=1)
    assert not np.allclose(other.per_split[0], one.per_split[0])


def test_common_splits_share_baselines_and_own_splits_do_not(digits: ImageSet) -> None:
    # Under stratification all labelings of a ratio have the same blind networks.
    for common in (True, False):
        scores = score(digits, some_labelings(2), protocol={**SHORT, "common": common}, jobs=1)
        assert np.array_equal(scores.baseline[0], scores.baseline[1]) == common


def test_progress_counts_every_labeling(digits: ImageSet) -> None:
    seen: list[int] = []
    score(digits, some_labelings(5), protocol=SHORT, jobs=1, progress=seen.append)
    assert sum(seen) == 5


def test_images_of_other_sizes_and_grey_ones_are_taken() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=3)
    labeling = np.arange(10) % 2
    assert equal(
        score(grey, labeling, protocol=SHORT, jobs=1),
        score(colour, labeling, protocol=SHORT, jobs=1),
    )


def test_global_generators_and_threads_are_left_alone(digits: ImageSet) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    score(digits, some_labelings(1), protocol=SHORT, jobs=1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


GOOD = np.arange(10) % 2


@pytest.mark.parametrize(
    ("labelings", "options", "words"),
    [
        (GOOD[:9], {}, "`labelings` must have one entry per image, 10 here, got 9"),
        (GOOD[None, None], {}, r"`labelings` must be an array \[n_labelings, n_images\]"),
        (np.empty((0, 10)), {}, r"`labelings` must be an array .* got shape \(0, 10\)"),
        (1, {}, "`labelings` must be an array"),
        (GOOD * 2, {}, "`labelings` must hold 0 and 1 only, got 2"),
        (GOOD - 1, {}, "`labelings` must hold 0 and 1 only, got -1"),
        (GOOD * 0.5, {}, "`labelings` must hold 0 and 1 only, got 0.5"),
        (np.where(GOOD, np.nan, 0), {}, "`labelings` must hold 0 and 1 only, got nan"),
        (GOOD.astype(str), {}, "`labelings` must hold 0 and 1 only, got <U"),
        ([[0, 1], [1]], {}, "`labelings` must"),
        (GOOD, {"seed": -1}, "`seed` must be 0 or more, got -1"),
        (GOOD, {"jobs": -1}, "`jobs` must be 0 .* or more, got -1"),
        (GOOD, {"device": "tpu"}, "`device` must be one of .* got 'tpu'"),
        (GOOD, {"device": "cuda:x"}, "`device` must be one of .* got 'cuda:x'"),
        (GOOD, {"device": "cpu:0"}, "`device` must be one of .* got 'cpu:0'"),
        (GOOD, {"device": "cuda"}, "`device` must be available here, .* --device cpu"),
        (GOOD, {"device": "cuda:0"}, "`device` must be available here, .* --device cpu"),
        (GOOD, {"protocol": "sourse"}, "`protocol` must be .* did you mean 'source'"),
        (GOOD, {"protocol": {"n_steps": -1}}, "`protocol.n_steps` must be at least"),
    ],
)
def test_bad_arguments(
    labelings: Any, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    images = np.zeros((10, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(SettingError, match=words):
        score(images, labelings, **options)


def test_too_few_images_to_split() -> None:
    with pytest.raises(ImageSetError, match=r"`protocol.n_folds` must be at most .* 4 here, got 5"):
        score(np.zeros((4, 32, 32, 3), dtype=np.uint8), [0, 1, 0, 1], protocol={"n_folds": 5})


PARTS = {"n_splits": 7, "n_folds": 5, "most_images": 20}


def test_more_images_than_are_used_are_scored_on_subsets(digits: ImageSet) -> None:
    labelings = some_labelings(6)
    scores = score(digits, labelings, protocol=PARTS, seed=3, jobs=1)
    # Training is as long as 20 images ask, not 50.
    n_steps = Protocol().steps(20)
    assert n_steps < Protocol().steps(50)
    assert scores.training.shape == scores.validation.shape == (6, 7, n_steps + 1)
    assert scores.per_split.shape == scores.baseline.shape == (6, 7)
    assert np.isfinite(scores.per_split).all()
    again = score(digits, labelings, protocol=PARTS, seed=3, jobs=2)
    assert equal(again, scores)
    other = score(digits, labelings, protocol=PARTS, seed=4, jobs=1)
    assert not np.allclose(other.per_split, scores.per_split)


def test_subsets_train_on_their_own_images_alone(digits: ImageSet) -> None:
    # The same scores by hand: those images taken out, their labels, their seeds.
    labelings = some_labelings(3)
    protocol = protocol_from(PARTS)
    scores = score(digits, labelings, protocol=protocol, seed=3, jobs=1)
    parts = score_module._parts(protocol, 50, 3)
    assert [p.n_splits for _, p, _ in parts] == [4, 3]
    assert all(len(np.unique(positions)) == 20 for positions, _, _ in parts)
    assert not np.array_equal(parts[0][0], parts[1][0])
    by_hand = [
        score(digits.take(positions), labelings[:, positions], protocol=p, seed=seed, jobs=1)
        for positions, p, seed in parts
    ]
    expected = np.concatenate([part.per_split for part in by_hand], axis=1)
    assert np.allclose(scores.per_split, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("most_images", [0, 50, 51, 10_000])
def test_sets_that_are_not_above_it_are_scored_whole(
    digits: ImageSet, scored: tuple[np.ndarray, Scores], most_images: int
) -> None:
    labelings, scores = scored
    protocol = {**SHORT, "most_images": most_images}
    assert equal(score(digits, labelings, protocol=protocol, seed=3, jobs=1), scores)


def test_classes_score_high_on_subsets_too(digits: ImageSet, class_labeling: np.ndarray) -> None:
    protocol = {"n_splits": 10, "n_steps": 60, "most_images": 30}
    labelings = np.stack([class_labeling, *some_labelings(4)])
    taskness = score(digits, labelings, protocol=protocol, jobs=1).taskness
    assert taskness[0] > taskness[1:].max() + 0.2


@pytest.mark.parametrize(
    "images", [np.zeros((10, 32, 32, 3)), np.zeros((10, 3, 32, 32), dtype=np.uint8), [[1]]]
)
def test_other_images_are_refused(images: Any) -> None:
    with pytest.raises(ImageSetError, match="`images` must be"):
        score(images, GOOD)


def test_images_that_cannot_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    images = np.zeros((50, 32, 32, 3), dtype=np.uint8)
    labeling = np.arange(50) % 5 == 0
    with pytest.raises(
        ImageSetError, match=r"must fit in memory, but laying 50 images out .*images\.n_images"
    ):
        score(images, labeling, jobs=1)
    # Of more images than one repeat uses, only those of one are laid out at a time.
    check_scorable(10_000, Protocol(most_images=5), Pool(1, "cpu"))
    with pytest.raises(ImageSetError, match="laying 10000 images out for 1 workers"):
        check_scorable(10_000, Protocol(most_images=0), Pool(1, "cpu"))


@pytest.mark.parametrize(
    ("free", "n_images", "expected"),
    [
        (32_000_000 * 10, 200, 10),  # 2 · 200 · 80 kB a network: half of the memory stays free
        (32_000_000 * 10 - 1, 200, 9),
        (1, 200, 1),
        (10**12, 200, score_module.GPU_POPULATION),
    ],
)
def test_a_gpu_trains_what_its_free_memory_holds(
    monkeypatch: pytest.MonkeyPatch, free: int, n_images: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**13))
    assert score_module.population_size("cuda:0", n_images) == expected
    assert score_module.population_size("cpu", n_images) == score_module.POPULATION


def test_the_bench_counts_what_a_plain_network_computes() -> None:
    one = Protocol(n_splits=1, n_steps=100)
    # Products per image: 784 · 450 + 100 · 2400 + 58,248 forward, twice that but 784 · 450 back.
    assert gigaflop(one, 50) == pytest.approx(14.1, abs=0.1)
    assert gigaflop(Protocol(n_splits=10, n_steps=100), 50) == pytest.approx(10 * gigaflop(one, 50))
