import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import vector_to_parameters

from taskdisc.config import AgreementSettings, ImagesSettings
from taskdisc.discovery.run import load_selected, load_with_held_out
from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import ImageSet, as_image_set, held_out, load_images, select
from taskdisc.labelings import random_labelings
from taskdisc.progress import Progress
from taskdisc.taskness import agreement as module
from taskdisc.taskness.agreement import Agreement, agreement, initialisations
from taskdisc.taskness.convolutions import lay_out
from taskdisc.taskness.lenet import LeNet, initial_parameters, standardised
from taskdisc.taskness.population import fit, positive_probability, train

SHORT: dict[str, Any] = {"n_pairs": 2, "n_steps": 15, "n_random": 2, "jobs": 1}


def shades(n: int, seed: int) -> np.ndarray:
    """Images of noise, dark and bright in turn."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 120, (n, 32, 32, 3))
    return (noise + 130 * (np.arange(n) % 2)[:, None, None, None]).astype(np.uint8)


@pytest.fixture(scope="module")
def source() -> ImageSet:
    return load_images("digits", cache=False)


@pytest.fixture(scope="module")
def others(source: ImageSet, digits: ImageSet) -> ImageSet:
    return held_out(source, digits, 60, target="digit")


@pytest.fixture(scope="module")
def random_scores(digits: ImageSet, others: ImageSet, class_labeling: np.ndarray) -> Agreement:
    return agreement(digits, class_labeling, others, seed=3, **SHORT)


def made(pairs: list[tuple[str, str]]) -> Agreement:
    """The agreement of one labeling whose pairs predict these bits."""
    bits = [[[bit == "1" for bit in network] for network in pair] for pair in pairs]
    return Agreement(np.array([bits]))


def test_as_chance_and_kappa_by_hand() -> None:
    scores = made([("1100", "1010"), ("1100", "1100")])
    assert scores.per_pair.tolist() == [[0.5, 1.0]]
    assert scores.chance.tolist() == [[0.5, 0.5]]
    assert scores.kappa.tolist() == [0.5]  # of 0 and 1
    assert scores.mean.tolist() == [0.75]
    # Pairs: s.d. of 0.5 and 1 over √2; images: s.d. of 1, 0.5, 0.5, 1 over √4.
    expected = (np.var([0.5, 1], ddof=1) / 2 + np.var([1, 0.5, 0.5, 1], ddof=1) / 4) ** 0.5
    assert scores.sem[0] == pytest.approx(expected)


def test_networks_that_call_all_images_negative_agree_by_chance() -> None:
    scores = made([("0000", "0000"), ("0000", "0001")])
    assert scores.per_pair.tolist() == [[1.0, 0.75]]
    assert scores.chance.tolist() == [[1.0, 0.75]]
    assert scores.kappa.tolist() == [0.0]
    assert scores.positive[0].tolist() == [[0, 0], [0, 0.25]]


def test_coins_agree_on_half_with_the_stated_error() -> None:
    rng = np.random.default_rng(0)
    scores = Agreement(rng.random((300, 5, 2, 100)) < 0.5)
    errors = scores.mean - 0.5
    assert abs(errors.mean()) < 4 * 0.5 / (300 * 500) ** 0.5
    # Without effects of pairs or images the sum of variances holds the same noise twice.
    assert scores.sem.mean() == pytest.approx(errors.std() * 2**0.5, rel=0.15)
    assert abs(scores.kappa).mean() < 0.05


def test_networks_of_the_same_seed_agree_exactly(
    digits: ImageSet,
    others: ImageSet,
    class_labeling: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        module, "initialisations", lambda labeling, n, seed: np.full(n, 7, dtype=np.int64)
    )
    labelings = np.stack([class_labeling, *random_labelings(1, 50, 10, np.random.default_rng(1))])
    scores = agreement(digits, labelings, others, **{**SHORT, "n_random": 0, "n_steps": 50})
    assert scores.mean.tolist() == [1, 1]
    assert scores.sem.tolist() == [0, 0]
    assert scores.positive[0].mean() > 0.02
    assert scores.random is None


def test_bright_against_dark_agrees_on_other_images() -> None:
    labeling = (np.arange(20) % 2).astype(np.uint8)
    scores = agreement(
        shades(20, 0), labeling, shades(40, 1), n_pairs=2, n_steps=60, n_random=0, jobs=1
    )
    assert scores.mean[0] > 0.98
    assert scores.kappa[0] > 0.95
    assert scores.positive.mean() == pytest.approx(0.5, abs=0.03)


def test_random_labelings_of_images_without_information_agree_on_half() -> None:
    """Networks are then constant: a pair agrees on all images or on none, by chance on all."""
    rng = np.random.default_rng(0)
    grey = np.full((20, 32, 32, 3), 100, dtype=np.uint8)
    grey[10:] = 101  # the image set must not be held out again
    scores = agreement(
        grey[:10],
        random_labelings(24, 10, 5, rng),
        grey[10:],
        n_pairs=2,
        n_steps=10,
        n_random=0,
        jobs=1,
    )
    assert set(np.unique(scores.per_pair)) <= {0.0, 1.0}
    assert not scores.kappa.any()
    assert abs(scores.mean.mean() - 0.5) < 4 * 0.5 / 48**0.5


def test_a_flipped_labeling_agrees_as_much(digits: ImageSet, others: ImageSet) -> None:
    labeling = (np.arange(50) % 20 < 10).astype(np.uint8)  # 30 positives against 20
    both = np.stack([labeling, 1 - labeling])
    scores = agreement(digits, both, others, n_pairs=3, n_steps=50, n_random=0, jobs=1)
    assert abs(np.diff(scores.mean)[0]) < 3 * np.hypot(*scores.sem)
    assert scores.positive[0].mean() == pytest.approx(1 - scores.positive[1].mean(), abs=0.1)


def test_two_processes_give_the_same_predictions_as_none(
    digits: ImageSet, others: ImageSet, class_labeling: np.ndarray, random_scores: Agreement
) -> None:
    two = agreement(digits, class_labeling, others, seed=3, **{**SHORT, "jobs": 2})
    assert np.array_equal(two.predictions, random_scores.predictions)
    assert two.random is not None and random_scores.random is not None
    assert np.array_equal(two.random.predictions, random_scores.random.predictions)


def test_company_does_not_matter_and_the_seed_does(
    digits: ImageSet, others: ImageSet, class_labeling: np.ndarray, random_scores: Agreement
) -> None:
    rolled = np.roll(class_labeling, 10)
    company = agreement(digits, np.stack([rolled, class_labeling]), others, seed=3, **SHORT)
    assert np.array_equal(company.predictions[1], random_scores.predictions[0])
    first = initialisations(class_labeling, 4, 0)
    assert len(set(first)) == 4
    assert not set(first) & set(initialisations(class_labeling, 4, 1))
    assert not set(first) & set(initialisations(rolled, 4, 0))


def test_predictions_are_those_of_a_plain_lenet(
    digits: ImageSet, others: ImageSet, class_labeling: np.ndarray
) -> None:
    labels = torch.from_numpy(np.stack([class_labeling, np.roll(class_labeling, 20)]))
    weights = torch.full(labels.shape, 1 / 50, dtype=torch.float64)
    patches = lay_out(standardised(digits.images, torch.float64))
    start = initial_parameters([1, 2], torch.float64)
    losses, trained = fit(patches, labels, weights, start, n_steps=40)
    assert torch.equal(losses, train(patches, labels, weights, start, n_steps=40))
    assert not trained.requires_grad
    x = standardised(others.images, torch.float64, like=digits.images)
    predicted = positive_probability(lay_out(x, 7), trained)
    assert predicted.shape == (2, 60)
    for parameters, mine in zip(trained, predicted, strict=True):
        network = LeNet().double()
        vector_to_parameters(parameters, network.parameters())
        with torch.no_grad():
            plain = network(x).softmax(dim=1)[:, 1]
        assert torch.allclose(mine, plain, rtol=0, atol=1e-9)
    assert 0.05 < (predicted > 0.5).double().mean() < 0.95


def test_held_out_images_are_standardised_as_the_image_set(digits: ImageSet) -> None:
    bright = np.full((3, 32, 32, 3), 250, dtype=np.uint8)
    x = standardised(bright, like=digits.images)
    pixels = digits.images / 255.0
    assert x.shape == (3, 3, 32, 32)
    expected = (250 / 255 - pixels.mean()) / pixels.std()  # digits are grey
    assert torch.allclose(x, torch.tensor(expected).float(), atol=1e-4)
    both = np.concatenate([digits.images[:2], bright])
    assert torch.equal(standardised(both, like=digits.images)[:2], standardised(digits.images)[:2])


@pytest.mark.parametrize("target", [None, "digit"])
def test_held_out_images_are_none_of_the_image_set(
    source: ImageSet, digits: ImageSet, target: str | None
) -> None:
    drawn = held_out(source, digits, 300, target=target, seed=1)
    assert len(drawn) == len(set(drawn.indices)) == 300
    assert not set(drawn.indices) & set(digits.indices)
    assert not set(drawn.hashes()) & set(digits.hashes())
    counts = np.bincount(drawn.targets["digit"], minlength=10)
    if target:
        own = np.unique(digits.targets["digit"])
        assert counts[own].tolist() == [60] * 5
        assert counts.sum() == counts[own].sum()
    else:
        assert (counts > 0).all()
    assert np.array_equal(
        drawn.indices, held_out(source, digits, 300, target=target, seed=1).indices
    )
    assert not np.array_equal(drawn.indices, held_out(source, digits, 300, target=target).indices)


def test_copies_of_an_image_are_not_held_out_and_sizes_follow() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    images[6:9] = images[:3]
    source = as_image_set(images)
    chosen = source.take(range(6)).resized(32)
    drawn = held_out(source, chosen, 5)
    assert sorted(drawn.indices) == [9, 10, 11]
    assert drawn.images.shape == (3, 32, 32, 3)


def test_settings_decide_what_is_held_out() -> None:
    images = ImagesSettings(n_classes=3, per_class=150)
    asked = AgreementSettings(n_held_out=200)
    chosen, others = load_with_held_out(images, asked, 0, Progress())
    assert chosen.content_hash() == load_selected(images, Progress()).content_hash()
    classes = set(chosen.targets["digit"])
    assert set(others.targets["digit"]) == classes
    assert 50 < len(others) < 200  # some 180 of each digit, so fewer than were asked for
    any_class = AgreementSettings(n_held_out=200, classes="all")
    _, others = load_with_held_out(images, any_class, 0, Progress())
    assert len(set(others.targets["digit"])) == 10
    assert len(others) == 200
    _, others = load_with_held_out(ImagesSettings(n_images=50), asked, 0, Progress())
    assert len(set(others.targets["digit"])) == 10


def test_nothing_left_to_hold_out(source: ImageSet) -> None:
    with pytest.raises(ImageSetError, match="must leave images of 'digits' to hold out, got all"):
        held_out(source, source, 10)
    twos = select(source, class_a="2", n_classes=1, per_class=177)
    with pytest.raises(ImageSetError, match=r"of its classes \(target 'digit'\).*classes=all"):
        held_out(source, twos, 10, target="digit")
    assert len(held_out(source, twos, 10)) == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_pairs": 0}, "`n_pairs` must be at least 1, got 0"),
        ({"n_steps": -1}, "`n_steps` must be at least 0, got -1"),
        ({"n_random": -1}, "`n_random` must be at least 0, got -1"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"labelings": np.full(50, 2)}, "0 and 1 only"),
        ({"labelings": np.eye(2, 50)[0]}, None),
        ({"labelings": np.tri(2, 50)}, "same number of positives, got from 1 to 2"),
    ],
)
def test_bad_arguments(
    digits: ImageSet,
    others: ImageSet,
    class_labeling: np.ndarray,
    changes: dict[str, Any],
    words: str | None,
) -> None:
    given = {"labelings": class_labeling, **SHORT, **changes}
    if words is None:
        assert np.isfinite(agreement(digits, held_out=others, **given).kappa).all()
        return
    with pytest.raises(SettingError, match=re.escape(words)):
        agreement(digits, held_out=others, **given)


def test_held_out_images_that_are_trained_on_are_refused(
    digits: ImageSet, class_labeling: np.ndarray
) -> None:
    with pytest.raises(SettingError, match="no image that is trained on, got 3 of them"):
        agreement(digits, class_labeling, digits.take([1, 2, 3]), **SHORT)


@pytest.mark.parametrize(("n_images", "seed"), [(0, 0), (5, -1)])
def test_bad_draws(source: ImageSet, digits: ImageSet, n_images: int, seed: int) -> None:
    with pytest.raises(SettingError, match="must be at least"):
        held_out(source, digits, n_images, seed=seed)


def test_a_folder_of_images_without_classes(tmp_path: Path, source: ImageSet) -> None:
    np.save(tmp_path / "images.npy", source.images[:80])
    images = ImagesSettings(source="arrays", root=str(tmp_path / "images.npy"))
    chosen, others = load_with_held_out(images, AgreementSettings(), 0, Progress())
    assert (len(chosen), len(others)) == (50, 30)
