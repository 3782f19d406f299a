import numpy as np
import pytest

import taskdisc
from taskdisc.discovery.swaps import descend
from taskdisc.errors import ImageSetError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.labelings import ablation, random_labelings
from taskdisc.taskness import closed_form as module
from taskdisc.taskness.closed_form import (
    ClosedFormScorer,
    Dense,
    LowRank,
    Quadratic,
    calibrated,
    closed_form_taskness,
    leading_vectors,
    memory,
    quadratic,
    taskness_on_splits,
)
from taskdisc.taskness.kernels import KERNELS, Kernel, Linear, Rbf, make_kernel
from taskdisc.taskness.score import check_fits


def points(n: int, n_features: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, n_features)).astype(np.float32)


def matrix_of(kernel: Kernel, n: int) -> np.ndarray:
    described = kernel.describe(np.arange(n))
    return kernel.compare(described, described)


def refitted(matrix: np.ndarray, labeling: np.ndarray, ridge: float, out: np.ndarray) -> np.ndarray:
    """What regression on the images that are not `out`, around their mean, says of those."""
    rest = ~out
    inner = matrix[np.ix_(rest, rest)] + ridge * np.eye(rest.sum())
    mean = labeling[rest].mean()
    return np.asarray(
        mean + matrix[np.ix_(out, rest)] @ np.linalg.solve(inner, labeling[rest] - mean)
    )


def by_refitting(matrix: np.ndarray, labeling: np.ndarray, ridge: float) -> float:
    """The definition: 1 - error / baseline error, leaving each image out."""
    n = len(labeling)
    error = baseline = 0.0
    for i in range(n):
        out = np.arange(n) == i
        error += float((labeling[i] - refitted(matrix, labeling, ridge, out)[0]) ** 2)
        baseline += float((labeling[i] - labeling[~out].mean()) ** 2)
    return 1 - error / baseline


@pytest.mark.parametrize("name", [*KERNELS, "linear+tangent-fc1"])
def test_agrees_with_leaving_each_image_out(digits: ImageSet, name: str) -> None:
    images = digits.take(np.arange(0, 50, 4)[:12])
    kernel = make_kernel(name, images)
    matrix = matrix_of(kernel, 12)
    for ridge in (0.3, KERNELS["linear"].ridge):
        q = Dense(kernel, 12, ridge)
        for n_pos in (1, 3, 6, 11):
            labelings = random_labelings(3, 12, n_pos, np.random.default_rng(n_pos))
            expected = [by_refitting(matrix, labeling, ridge) for labeling in labelings]
            np.testing.assert_allclose(closed_form_taskness(q, labelings), expected, atol=1e-9)


def test_the_ridge_and_rank_of_an_image_set(digits: ImageSet) -> None:
    labelings = random_labelings(4, 50, 10, np.random.default_rng(0))
    kernel = make_kernel("rbf", digits)
    for ridge, of in ((None, KERNELS["rbf"].ridge), (0.5, 0.5)):
        q = quadratic(digits, kernel="rbf", ridge=ridge)
        assert isinstance(q, Dense)
        expected = closed_form_taskness(Dense(kernel, 50, of), labelings)
        np.testing.assert_allclose(closed_form_taskness(q, labelings), expected)
    q = quadratic(digits, kernel="rbf", rank=20, seed=1)
    assert isinstance(q, LowRank)
    assert q.u.shape[1] <= 20
    other = quadratic(digits, kernel="rbf", rank=20, seed=2)
    assert not np.allclose(q.diagonal, other.diagonal)


def test_many_images_have_low_rank(monkeypatch: pytest.MonkeyPatch, digits: ImageSet) -> None:
    monkeypatch.setattr(module, "MOST_DENSE", 40)
    monkeypatch.setattr(module, "RANK", 30)
    q = quadratic(digits, kernel="linear")
    assert isinstance(q, LowRank)
    assert q.u.shape == (50, 30)
    assert memory(50, "rbf") == memory(50, "rbf", 30) != memory(40, "rbf")


def test_constant_labelings_score_0_and_flips_alike() -> None:
    q = Dense(Rbf(points(12)), 12, 0.5)
    assert closed_form_taskness(q, np.stack([np.zeros(12), np.ones(12)])).tolist() == [0, 0]
    labelings = random_labelings(4, 12, 3, np.random.default_rng(0))
    np.testing.assert_allclose(
        closed_form_taskness(q, labelings), closed_form_taskness(q, 1 - labelings), atol=1e-12
    )


def test_what_the_kernel_separates_scores_1_and_what_it_does_not_see_below_0() -> None:
    labeling = np.arange(40) % 2
    q = Dense(Linear((2.0 * labeling - 1)[:, None].astype(np.float32)), 40, 0.01)
    seen, unseen = closed_form_taskness(q, np.stack([labeling, np.arange(40) // 2 % 2]))
    assert seen > 0.99
    assert unseen < 0.0


@pytest.fixture(scope="module")
def forms() -> tuple[Dense, LowRank]:
    kernel = Rbf(points(40))
    return Dense(kernel, 40, 0.5), LowRank(kernel, 40, 0.5, np.arange(40))


def test_low_rank_with_all_landmarks_is_the_dense_form(forms: tuple[Dense, LowRank]) -> None:
    dense, low = forms
    rng = np.random.default_rng(0)
    z = rng.standard_normal((7, 40))
    np.testing.assert_allclose(low.product(z), dense.product(z), atol=2e-3)
    np.testing.assert_allclose(low.diagonal, dense.diagonal, rtol=1e-4)
    images = np.array([3, 39, 3, 0])
    np.testing.assert_allclose(low.columns(images), dense.columns(images), atol=1e-3)
    rows, columns = rng.permutation(40).reshape(2, 4, 5)
    np.testing.assert_allclose(low.entries(rows, columns), dense.entries(rows, columns), atol=1e-3)
    labelings = random_labelings(30, 40, 8, rng)
    np.testing.assert_allclose(
        closed_form_taskness(low, labelings), closed_form_taskness(dense, labelings), atol=1e-4
    )


def test_parts_of_the_dense_form_are_those_of_one_matrix(forms: tuple[Dense, LowRank]) -> None:
    dense, _ = forms
    q = dense.residual.T @ dense.residual
    assert np.linalg.eigvalsh(q)[0] > -1e-9
    z = np.random.default_rng(0).standard_normal((3, 40))
    np.testing.assert_allclose(dense.product(z), z @ q)
    np.testing.assert_allclose(dense.columns(np.array([4, 1])), q[[4, 1]])
    rows, columns = np.array([[1, 2], [5, 6]]), np.array([[7, 8, 9], [1, 2, 3]])
    expected = [q[np.ix_(r, c)] for r, c in zip(rows, columns, strict=True)]
    np.testing.assert_allclose(dense.entries(rows, columns), expected)
    np.testing.assert_allclose(dense.diagonal, np.diag(q))


def test_more_landmarks_come_nearer() -> None:
    n = 150
    kernel = Rbf(points(n))
    labelings = random_labelings(40, n, 30, np.random.default_rng(1))
    exact = closed_form_taskness(Dense(kernel, n, 1.0), labelings)
    order = np.random.default_rng(2).permutation(n)
    errors = []
    for rank in (10, 40, 150):
        q = LowRank(kernel, n, 1.0, np.sort(order[:rank]))
        errors.append(float(np.abs(closed_form_taskness(q, labelings) - exact).mean()))
    assert errors[0] > 2 * errors[1] > 20 * errors[2]


def test_low_rank_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Rbf(points(40))
    whole = LowRank(kernel, 40, 0.5, np.arange(0, 40, 3))
    monkeypatch.setattr(module, "CHUNK", 7)
    parts = LowRank(kernel, 40, 0.5, np.arange(0, 40, 3))
    np.testing.assert_allclose(parts.diagonal, whole.diagonal, rtol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_a_swap_changes_the_form_as_its_entries_say(
    forms: tuple[Dense, LowRank], which: int
) -> None:
    q: Quadratic = forms[which]

    def value(labeling: np.ndarray) -> float:
        z = (labeling - labeling.mean())[None]
        return float((z * q.product(z)).sum())

    labeling = random_labelings(1, 40, 8, np.random.default_rng(3))[0]
    qz = q.product((labeling - labeling.mean())[None])[0]
    for i in np.flatnonzero(labeling == 1)[:4]:
        for j in np.flatnonzero(labeling == 0)[:6]:
            swapped = labeling.copy()
            swapped[[i, j]] = 0, 1
            entry = q.entries(np.array([[i]]), np.array([[j]]))[0, 0, 0]
            change = 2 * (qz[j] - qz[i]) + q.diagonal[i] + q.diagonal[j] - 2 * entry
            assert value(swapped) - value(labeling) == pytest.approx(change, abs=1e-3)


def test_splits_agree_with_refitting_on_each() -> None:
    kernel = Rbf(points(20))
    matrix = matrix_of(kernel, 20)
    rng = np.random.default_rng(0)
    labelings = random_labelings(3, 20, 8, rng)
    masks = rng.permuted(np.arange(20) < [[[5]], [[3]], [[1]]], axis=2)
    masks = np.broadcast_to(masks.transpose(1, 0, 2), (3, 3, 20))
    expected = []
    for labeling, own in zip(labelings, masks, strict=True):
        scores = []
        for mask in own:
            error = ((labeling[mask] - refitted(matrix, labeling, 0.7, mask)) ** 2).sum()
            scores.append(1 - error / ((labeling[mask] - labeling[~mask].mean()) ** 2).sum())
        expected.append(np.mean(scores))
    np.testing.assert_allclose(taskness_on_splits(kernel, labelings, 0.7, masks), expected)


def test_leaving_one_out_is_the_splits_of_one_image() -> None:
    # At 1:1 the baseline's error is the same for each image, so the mean of ratios is their ratio.
    kernel = Rbf(points(16))
    labelings = random_labelings(3, 16, 8, np.random.default_rng(0))
    masks = np.broadcast_to(np.eye(16, dtype=bool), (3, 16, 16))
    np.testing.assert_allclose(
        taskness_on_splits(kernel, labelings, 0.7, masks),
        closed_form_taskness(Dense(kernel, 16, 0.7), labelings),
    )


@pytest.mark.parametrize("ridge", [0.05, 1.0, 10.0])
@pytest.mark.parametrize("low_rank", [False, True])
def test_leading_vectors_are_the_smallest_eigenvectors(ridge: float, low_rank: bool) -> None:
    n = 40
    kernel = Rbf(points(n))
    dense = Dense(kernel, n, ridge)
    q: Quadratic = LowRank(kernel, n, ridge, np.arange(n)) if low_rank else dense
    centring = np.eye(n) - 1 / n
    values = np.linalg.eigvalsh(centring @ dense.q @ centring)[1:]  # without the constant
    vectors = leading_vectors(q, n, 6, np.random.default_rng(0))
    assert vectors.shape == (6, n)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(6), atol=1e-6)
    np.testing.assert_allclose(vectors.sum(axis=1), 0, atol=1e-3)
    found = np.sort(np.einsum("ki,ij,kj->k", vectors, dense.q, vectors))
    np.testing.assert_allclose(found, values[:6], rtol=1e-3)


def test_there_are_fewer_leading_vectors_than_images() -> None:
    q = Dense(Rbf(points(5)), 5, 1.0)
    assert leading_vectors(q, 5, 32, np.random.default_rng(0)).shape == (4, 5)


def test_scores_in_a_batch_as_alone_and_on_the_trained_scale() -> None:
    q = Dense(Rbf(points(20)), 20, 1.0)
    labelings = random_labelings(6, 20, 5, np.random.default_rng(5))
    together = next(ClosedFormScorer(q).score_groups([labelings])).taskness
    alone = [
        scores.taskness[0]
        for scores in ClosedFormScorer(q).score_groups([row[None] for row in labelings])
    ]
    np.testing.assert_allclose(together, alone, atol=1e-12)
    scaled = next(ClosedFormScorer(q, exponent=3.0).score_groups([labelings])).taskness
    np.testing.assert_allclose(scaled, calibrated(together, 3.0))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 4.0])
def test_calibration_keeps_0_and_1_and_the_order(exponent: float) -> None:
    x = np.linspace(-2, 1, 301)
    y = calibrated(x, exponent)
    assert (np.diff(y) > 0).all()
    assert y[-1] == 1
    np.testing.assert_allclose(
        calibrated(np.array([0.0, 1e-6, -1e-6]), exponent),
        [0, 1e-6 * exponent, -1e-6 * exponent],
        rtol=1e-4,
    )
    if exponent == 1:
        np.testing.assert_allclose(y, x)


def test_memory_grows_with_the_square_of_the_images_or_with_the_rank() -> None:
    assert memory(4000, "rbf") - memory(2000, "rbf") > 5 * 8 * (4000**2 - 2000**2)
    assert memory(5000, "rbf") > memory(5001, "rbf")  # above, all pairs are no longer held
    assert memory(20_000, "rbf", 250) < memory(20_000, "rbf", module.RANK) == memory(20_000, "rbf")
    assert 1.9 < memory(40_000, "rbf") / memory(20_000, "rbf") < 2
    assert memory(4000, "tangent") > memory(4000, "tangent-fc1") > memory(4000, "rbf")


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PHYS_PAGES": 1_000_000, "SC_PAGE_SIZE": 4096}  # 4.096 GB
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    check_fits(int(0.8 * 4.096e9), "the closed form")
    with pytest.raises(
        ImageSetError,
        match=r"must fit in memory, but the closed form needs 8 GB and this machine has 4 GB; "
        r"select fewer with `images\.n_images`.*`closed_form\.rank`",
    ) as caught:
        check_fits(8 * 10**9, "the closed form")
    assert "\n" not in str(caught.value)


def test_a_search_whose_form_does_not_fit_is_refused_before_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = {"SC_PHYS_PAGES": 100_000, "SC_PAGE_SIZE": 4096}  # 0.4 GB
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    images = ImageSet("array", np.zeros((4000, 1, 1, 3), dtype=np.uint8))
    with pytest.raises(ImageSetError, match="but the closed form needs 1 GB"):
        taskdisc.search(images, jobs=1)


def test_digits_come_back_without_their_labels() -> None:
    images = taskdisc.select(taskdisc.load_images("digits"), n_classes=10, per_class=10)
    result = taskdisc.search(
        images,
        ratio=9,
        tasks=10,
        closed_form={"kernel": "rbf", "ridge": 0.5},
        budget=100,
        protocol={"n_steps": 5, "n_splits": 5},
        confirm={"n_splits": 2, "n_random": 200, "random_splits": 1},
        jobs=1,
    )
    classes = [(images.targets["digit"] == c).astype(int) for c in range(10)]
    nearest = [min(ablation(found, known) for found in result.labelings) for known in classes]
    assert sum(distance <= 0.2 for distance in nearest) >= 4


def test_nothing_is_found_in_noise() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3)).astype(np.uint8)
    structured = taskdisc.select(taskdisc.load_images("digits"), n_classes=5, per_class=10)
    best = {}
    starts = random_labelings(50, 50, 10, np.random.default_rng(1))
    for name, images in (("noise", as_image_set(pixels)), ("digits", structured)):
        q = quadratic(images, kernel="linear")
        best[name] = closed_form_taskness(q, descend(q, starts)).max()
        if name == "digits":
            luck = closed_form_taskness(q, starts).max()
    # Searching noise gives no more than drawing labelings of digits at random does.
    assert best["noise"] < max(luck, 0.05) < best["digits"] / 3
