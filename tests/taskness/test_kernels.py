from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import vector_to_parameters

from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.taskness import kernels as module
from taskdisc.taskness.features import features
from taskdisc.taskness.kernels import (
    EMBEDDED,
    KERNELS,
    Kernel,
    Linear,
    Mean,
    Precomputed,
    Rbf,
    Tangent,
    make_kernel,
    resolved_kernel,
    ridge_of,
)
from taskdisc.taskness.lenet import LeNet, initial_parameters


def noise(n_images: int = 8, seed: int = 0) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (n_images, 32, 32, 3))
    return as_image_set(pixels.astype(np.uint8))


def matrix_of(kernel: Kernel, n_images: int) -> np.ndarray:
    described = kernel.describe(np.arange(n_images))
    return kernel.compare(described, described)


@pytest.mark.parametrize("layers", [(), ("fc1",), ("conv1", "fc3"), ("conv2",)])
def test_tangent_is_the_product_of_explicit_gradients(
    digits: ImageSet, layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "N_NETWORKS", 3)
    pixels = features("pixels", digits)[::10]
    images = torch.from_numpy(pixels).reshape(-1, 3, 32, 32)
    expected = np.zeros((len(images), len(images)))
    for seed in range(3):
        net = LeNet()
        vector_to_parameters(initial_parameters([seed])[0], net.parameters())
        rows = []
        for image in images:
            logits = net(image[None])[0]
            chosen = [
                parameter
                for name, parameter in net.named_parameters()
                if not layers or name.split(".")[0] in layers
            ]
            parts = torch.autograd.grad(logits[1] - logits[0], chosen)
            rows.append(torch.cat([part.flatten() for part in parts]).double().numpy())
        gradients = np.stack(rows)
        if not layers:
            assert gradients.shape[1] == 61_326
        expected += gradients @ gradients.T
    expected /= np.diag(expected).mean()
    found = matrix_of(Tangent(pixels, layers), len(pixels))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", [*KERNELS, "linear+rbf", "tangent-fc1+random"])
def test_kernels_are_positive_semi_definite_and_1_on_average(digits: ImageSet, name: str) -> None:
    images = digits.take(np.arange(0, 50, 3))
    kernel = make_kernel(name, images)
    matrix = matrix_of(kernel, len(images))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix)[0] > -1e-9
    assert np.diag(matrix).mean() == pytest.approx(1, abs=1e-6)
    # Some images against others: a block of the same matrix.
    a, b = np.array([3, 0, 7]), np.array([5, 3])
    block = kernel.compare(kernel.describe(a), kernel.describe(b))
    np.testing.assert_allclose(block, matrix[np.ix_(a, b)], atol=1e-6)


def test_linear_and_rbf_by_hand() -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]], dtype=np.float32)
    linear = np.array([[0, 0, 0], [0, 25, 16], [0, 16, 16]]) / (41 / 3)
    np.testing.assert_allclose(matrix_of(Linear(x), 3), linear)
    # Squared distances 25, 16 and 9: the median is 16.
    rbf = np.exp(-np.array([[0, 25, 16], [25, 0, 9], [16, 9, 0]]) / 16)
    np.testing.assert_allclose(matrix_of(Rbf(x), 3), rbf)


def test_the_width_of_rbf_needs_but_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    exact = matrix_of(Rbf(x), 300)
    monkeypatch.setattr(module, "SAMPLE", 100)
    np.testing.assert_allclose(matrix_of(Rbf(x), 300), exact, atol=0.05)


def test_mean_is_the_mean_of_matrices() -> None:
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    parts: list[Kernel] = [Linear(x), Rbf(x), Rbf(x[:, :2])]
    expected = np.mean([matrix_of(part, 6) for part in parts], axis=0)
    np.testing.assert_allclose(matrix_of(Mean(parts), 6), expected)


def test_names_joined_by_plus_are_a_mean(digits: ImageSet, tmp_path: Path) -> None:
    images = digits.take(np.arange(0, 50, 5))
    given = np.eye(10) * 3
    np.save(tmp_path / "k.npy", given)
    found = matrix_of(make_kernel(f"rbf+{tmp_path / 'k.npy'}", images, "random"), 10)
    expected = (matrix_of(make_kernel("rbf", images, "random"), 10) + np.eye(10)) / 2
    np.testing.assert_allclose(found, expected)
    assert ridge_of("rbf") == KERNELS["rbf"].ridge != ridge_of("rbf", "random") == EMBEDDED
    assert ridge_of("random+k.npy") == (KERNELS["random"].ridge + EMBEDDED) / 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_a_matrix_from_a_file(tmp_path: Path, dtype: type) -> None:
    x = np.random.default_rng(1).integers(-3, 4, (5, 3))
    np.save(tmp_path / "k.npy", (x @ x.T).astype(dtype))
    found = matrix_of(Precomputed.read(str(tmp_path / "k.npy"), 5), 5)
    np.testing.assert_allclose(found, x @ x.T / (x**2).sum(axis=1).mean(), rtol=1e-3)
    assert np.diag(found).mean() == pytest.approx(1)


GOOD = np.array([[2.0, 1, 0], [1, 2, 1], [0, 1, 2]])


@pytest.mark.parametrize(
    ("matrix", "error", "sentence"),
    [
        (GOOD[:2], ImageSetError, r"row and a column for each of the 3 images, got \[2, 3\]"),
        (np.eye(4), ImageSetError, r"row and a column for each of the 3 images, got \[4, 4\]"),
        (GOOD[None], ImageSetError, r"got \[1, 3, 3\]"),
        (np.triu(GOOD), ImageSetError, "symmetric .* differ from their mirror images by up to 1 "),
        (GOOD - 1.5 * np.eye(3), ImageSetError, "semi-definite, got a smallest eigenvalue of -0.9"),
        (np.where(GOOD == 1, np.nan, GOOD), ImageSetError, "must be finite numbers"),
        (np.diag([1, np.nan, 1]), ImageSetError, "must be finite numbers"),
        (np.where(GOOD == 0, np.inf, GOOD), ImageSetError, "must be finite numbers"),
        (-GOOD, ImageSetError, "positive diagonal"),
        (np.zeros((3, 3)), ImageSetError, "positive diagonal"),
        (GOOD.ravel(), SettingError, r"must be a \.npy of numbers \[n, n\], got float64 \[9\]"),
        (GOOD.astype(str), SettingError, r"must be a \.npy of numbers"),
        (GOOD + 1j, SettingError, r"must be a \.npy of numbers"),
        (b"junk", SettingError, "cannot be read"),
        (None, SettingError, "does not exist"),
    ],
)
def test_bad_matrices(tmp_path: Path, matrix: Any, error: type[Exception], sentence: str) -> None:
    path = tmp_path / "k.npy"
    if isinstance(matrix, bytes):
        path.write_bytes(matrix)
    elif matrix is not None:
        np.save(path, matrix)
    with pytest.raises(error, match=sentence) as caught:
        make_kernel(str(path), noise(3))
    assert "\n" not in str(caught.value)
    assert "closed_form.kernel" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("linaer", "got 'linaer'; did you mean 'linear'"),
        ("tangent-fc2", "did you mean 'tangent-fc1'"),
        ("linear+rfb", r"got 'linear\+rfb'; did you mean 'rbf'"),
        ("linear+", "choose one of"),
        ("", "choose one of"),
        ("kernel.npz", "choose one of"),
    ],
)
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(SettingError, match=rf"`closed_form\.kernel` must be .*{words}"):
        resolved_kernel(name)
    with pytest.raises(SettingError, match=words):
        make_kernel(name, noise(3))
