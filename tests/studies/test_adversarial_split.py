from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import ImagesSettings, read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.adversarial_split import (
    SPLITS,
    AdversarialSplitSettings,
    against,
    answer,
    cells,
    first_usable,
    measure,
    predictions,
    split_like,
)
from taskdisc.studies.images import source_of
from taskdisc.studies.run import new_study, run_study
from taskdisc.studies.study import Record

POOL = Pool(1, "cpu")
CONFIGS = Path(__file__).parents[2] / "configs" / "studies"
TINY: dict[str, Any] = {
    "images": {"n_classes": 4, "per_class": 10},
    "search": {"budget": 30, "tasks": 3, "closed_form": {"kernel": "rbf"}},
    "least_images": 4,
    "n_models": 2,
    "n_random_splits": 2,
    "n_steps": 3,
    "n_seeds": 2,
}
KNOWN = np.repeat([0, 1], 20).astype(np.uint8)


def settings_with(**changes: Any) -> AdversarialSplitSettings:
    return settings_from(AdversarialSplitSettings, {**TINY, **changes})


def test_a_network_prefers_the_easy_task_where_both_agree_and_fails_where_they_differ() -> None:
    # Bright or dark decides one task, and noise the other: only the first can be learnt.
    rng = np.random.default_rng(0)
    bright = np.tile([0, 1], 20).astype(np.uint8)
    pixels = rng.integers(0, 100, (40, 32, 32, 3)) + 120 * bright[:, None, None, None]
    images = ImageSet("made", pixels.astype(np.uint8))
    train = bright == KNOWN
    called = predictions(images, KNOWN, train[None], np.arange(2)[None], 30, POOL)[0]
    assert (called == KNOWN)[:, train].mean() > 0.95
    assert (called == KNOWN)[:, ~train].mean() < 0.05
    # Trained on all images with the bright ones positive, no image is mistaken.
    every = np.ones((1, 40), dtype=bool)
    assert (predictions(images, bright, every, np.arange(2)[None], 30, POOL) == bright).all()


def test_test_images_do_not_train() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    images, labels = ImageSet("noise", pixels), np.tile([0, 1], 10).astype(np.uint8)
    train = np.arange(20) < 10
    others = np.where(train, labels, 1 - labels)
    seeds = np.arange(2)[None]
    a, b = (predictions(images, known, train[None], seeds, 20, POOL) for known in (labels, others))
    assert np.array_equal(a, b)


def test_a_labeling_is_flipped_to_agree_on_half_of_the_images_or_more() -> None:
    for labeling in random_labelings(20, 40, 20, np.random.default_rng(0)):
        turned = against(KNOWN, labeling)
        assert 2 * (turned == KNOWN).sum() >= 40
        assert np.array_equal(turned, labeling) or np.array_equal(turned, 1 - labeling)


def test_the_first_labeling_that_splits_both_classes_is_taken() -> None:
    differs_on_two = KNOWN.copy()
    differs_on_two[[0, 20]] = 1 - KNOWN[[0, 20]]
    crossed = np.tile([0, 1], 20).astype(np.uint8)
    assert first_usable([KNOWN, 1 - KNOWN, differs_on_two, crossed], KNOWN, 10) == 3
    assert first_usable([KNOWN, 1 - KNOWN, differs_on_two, crossed], KNOWN, 2) == 2
    assert first_usable([KNOWN, differs_on_two], KNOWN, 10) is None


def test_random_splits_have_the_sizes_and_classes_of_the_adversarial_one() -> None:
    rng = np.random.default_rng(0)
    train = rng.random(40) < 0.6
    splits = [split_like(train, KNOWN, rng) for _ in range(5)]
    for split in splits:
        assert split.sum() == train.sum()
        assert KNOWN[split].sum() == KNOWN[train].sum()
    assert len({split.tobytes() for split in splits}) == 5


@pytest.fixture(scope="module")
def records() -> list[Record]:
    settings = settings_with()
    return [{**cell, **measure(settings, cell, POOL, Progress())} for cell in cells(settings)]


def test_a_cell_holds_consistent_splits(records: list[Record]) -> None:
    assert [record["seed"] for record in records] == [0, 1]
    assert records[0]["indices"] != records[1]["indices"]
    for record in records:
        (adversarial,) = record["splits"]["adversarial"]
        assert adversarial["n_train"] + adversarial["n_test"] == 40
        assert adversarial["n_train"] >= adversarial["n_test"] >= 4
        for right, followed in zip(
            adversarial["accuracy"], adversarial["discovered_accuracy"], strict=True
        ):
            assert right == pytest.approx(1 - followed)
        for split in record["splits"]["like adversarial"]:
            assert split["n_train"] == adversarial["n_train"]
        pairs = [record["splits"][kind] for kind in ("control", "like control")]
        assert len(pairs[0]) == 2
        for control, like in zip(*pairs, strict=True):
            assert (control["n_train"], control["n_test"]) == (like["n_train"], like["n_test"])
            assert control["train"] != like["train"]
        assert np.isfinite([record["taskness"], record["t_task"]]).all()


def test_the_answer_compares_pairs_and_says_what_the_numbers_say(records: list[Record]) -> None:
    def told(adversarial: float, random: float) -> str:
        changed = []
        for i, record in enumerate(records):
            splits = {
                kind: [{**split, "accuracy": [value + 0.01 * i] * 2} for split in parts]
                for (kind, parts), value in zip(
                    record["splits"].items(),
                    (adversarial, random + 0.001 * i, random, random),
                    strict=True,
                )
            }
            changed.append({**record, "splits": splits})
        return answer(settings_with(), changed).reading

    assert "the difference is -0.60 ± 0.00, so the discovered labelings drew" in told(0.2, 0.8)
    assert "did not draw networks away, but helped" in told(0.9, 0.5)
    assert "which a 95 % interval does not tell from none" in told(0.5, 0.495)


def test_repeats_without_a_usable_labeling_are_left_out(records: list[Record]) -> None:
    without = {"seed": 1, "positive_classes": ["0"], "candidate": None}
    told = answer(settings_with(), [records[0], without])
    assert {row["seed"] for row in told.table} == {0} and list(told.arrays) == ["split-0"]
    assert "1 more repeats found no labeling" in told.reading
    with pytest.raises(SettingError, match=r"`least_images` must leave a labeling"):
        answer(settings_with(), [without])


def test_the_folder_keeps_the_split(tmp_path: Path) -> None:
    settings = settings_with(n_steps=1, n_models=1, n_random_splits=1)
    folder = new_study("adversarial-split", settings, tmp_path / "out", POOL, Progress())
    told = run_study(folder, POOL, Progress())
    folder.close()
    assert [(row["seed"], row["split"]) for row in told.table] == [
        (seed, kind) for seed in (0, 1) for kind in SPLITS
    ]
    source = source_of(settings.images)
    with np.load(tmp_path / "out" / "split-1.npz", allow_pickle=False) as arrays:
        agree = arrays["known"] == arrays["discovered"]
        assert arrays["train_indices"].tolist() == arrays["indices"][agree].tolist()
        assert arrays["test_indices"].tolist() == arrays["indices"][~agree].tolist()
        images = source.take(arrays["indices"]).resized(32)
        assert arrays["hashes"].tolist() == images.hashes()
        digits = images.targets["digit"]
        for digit in np.unique(digits):
            assert len(set(arrays["known"][digits == digit])) == 1


def test_positive_classes_are_as_named() -> None:
    settings = settings_with(positive_classes=["3", "7"], n_models=1, n_random_splits=1, n_steps=1)
    record = measure(settings, {"seed": 0}, POOL, Progress())
    assert record["positive_classes"] == ["3", "7"]
    images = source_of(ImagesSettings()).take(np.array(record["indices"]))
    names = np.array(images.classes["digit"])[images.targets["digit"]]
    known = np.unpackbits(np.frombuffer(bytes.fromhex(record["known"]), np.uint8), count=40)
    assert set(names[known == 1]) == {"3", "7"}
    assert len(set(names[known == 0])) == 2 and known.sum() == 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {"n_classes": 5, "per_class": 10}}, "an even number, .* got 5 and 10"),
        ({"images": {"n_images": 50}}, "`images.n_classes` and `images.per_class` must be given"),
        ({"positive_classes": ["1"]}, "`positive_classes` must be 2 different classes.*got 1"),
        ({"search": {"budgt": 1}}, "`budgt` is not a setting"),
        ({"n_seeds": 1}, "`n_seeds`"),
        ({"n_steps": 0}, "`n_steps`"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        settings_with(**changes)


def test_the_digits_configuration_is_the_default() -> None:
    def read(name: str) -> AdversarialSplitSettings:
        return read_settings(AdversarialSplitSettings, CONFIGS / name)

    assert read("adversarial-split-digits.yaml") == AdversarialSplitSettings()
    assert read("adversarial-split.yaml").images.source == "cifar100"
