from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import get_model

from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.taskness import features as module
from taskdisc.taskness.features import features, resolved
from taskdisc.taskness.lenet import standardised


def centred(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=0)
    return x / np.abs(x).max()


def saved(path: Path, array: Any, **options: Any) -> str:
    np.save(path, array, **options)
    return str(path)


@pytest.fixture
def noise() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3))
    return as_image_set(pixels.astype(np.uint8))


def test_pixels_are_those_that_the_network_sees(digits: ImageSet) -> None:
    expected = standardised(digits.resized(32).images).flatten(1).numpy()
    np.testing.assert_array_equal(features("pixels", digits), expected)


def test_random_is_the_same_in_batches_of_any_size(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = features("random", digits)
    assert x.dtype == np.float32 and x.shape == (50, 256 * 9)
    np.testing.assert_array_equal(features("random", digits), x)
    monkeypatch.setattr(module, "BATCH", 7)
    np.testing.assert_allclose(features("random", digits), x, atol=1e-5)


def test_random_tells_digits_apart(digits: ImageSet) -> None:
    x = features("random", digits).astype(float)
    distances = ((x[:, None] - x[None]) ** 2).sum(axis=2) + 1e9 * np.eye(len(x))
    digit = digits.targets["digit"]
    assert (digit[distances.argmin(axis=1)] == digit).mean() >= 0.9


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_an_embedding_has_a_row_per_image(noise: ImageSet, tmp_path: Path, dtype: type) -> None:
    rows = (np.random.default_rng(1).standard_normal((8, 5)) * 50).astype(dtype)
    # Rows stand as they are, whatever positions the images had.
    images = ImageSet("array", noise.images, indices=np.arange(8)[::-1].copy())
    x = features(saved(tmp_path / "rows.npy", rows), images)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, centred(rows.astype(float)), atol=1e-6)


def test_an_embedding_of_the_whole_split_is_read_by_position(
    noise: ImageSet, tmp_path: Path
) -> None:
    rows = np.random.default_rng(1).standard_normal((8, 2, 2, 3))
    path = saved(tmp_path / "rows.npy", rows)
    x = features(path, noise.take([6, 1, 3]))
    np.testing.assert_allclose(x, centred(rows[[6, 1, 3]].reshape(3, 12)), atol=1e-6)


def test_small_differences_beside_a_large_mean_are_kept(noise: ImageSet, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((8, 4))
    x = features(saved(tmp_path / "rows.npy", rows * 1e-7 + 10), noise)
    np.testing.assert_allclose(x, centred(rows), atol=1e-6)


NUMBERS = np.arange(24.0).reshape(8, 3)
WITH_NAN = np.where(NUMBERS == 7, np.nan, NUMBERS)
WITH_INF = np.where(NUMBERS == 0, np.inf, NUMBERS)


@pytest.mark.parametrize(
    ("rows", "error", "sentence"),
    [
        (NUMBERS[:7], ImageSetError, "each of the 8 images.* more than 7, got 7"),
        (WITH_NAN, ImageSetError, "must be finite .* for image 2 of 8"),
        (WITH_INF, ImageSetError, "must be finite .* for image 0 of 8"),
        (np.full((8, 3), 0.1), ImageSetError, "must tell images apart"),
        (NUMBERS[:, 0], SettingError, r"must be a .npy of numbers .* got float64 \[8\]"),
        (NUMBERS[:, :0], SettingError, r"got float64 \[8, 0\]"),
        (NUMBERS + 1j, SettingError, r"got complex128 \[8, 3\]"),
        (NUMBERS.astype(str), SettingError, r"got <U32 \[8, 3\]"),
        (NUMBERS.astype(object), SettingError, "cannot be read: .*[Oo]bjects.*numpy.save"),
        (b"junk", SettingError, "cannot be read"),
        (b"", SettingError, "cannot be read"),
        (None, SettingError, "does not exist"),
    ],
)
def test_bad_embeddings(
    noise: ImageSet, tmp_path: Path, rows: Any, error: type[Exception], sentence: str
) -> None:
    path = tmp_path / "rows.npy"
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    elif rows is not None:
        saved(path, rows, allow_pickle=True)
    with pytest.raises(error, match=sentence) as caught:
        features(str(path), noise)
    assert "\n" not in str(caught.value)


def test_torn_embeddings(noise: ImageSet, tmp_path: Path) -> None:
    path = Path(saved(tmp_path / "rows.npy", NUMBERS))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SettingError, match="cannot be read"):
        features(str(path), noise)


def test_rows_must_reach_the_last_position(noise: ImageSet, tmp_path: Path) -> None:
    path = saved(tmp_path / "rows.npy", NUMBERS[:6])
    with pytest.raises(ImageSetError, match=r"each of the 2 images, .* more than 6, got 6"):
        features(path, noise.take([0, 6]))


def test_images_that_are_all_alike_are_refused() -> None:
    blank = as_image_set(np.zeros((4, 32, 32, 3), dtype=np.uint8))
    for name in ("pixels", "random"):
        with pytest.raises(ImageSetError, match=f"tell images apart, got the same from '{name}'"):
            features(name, blank)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("pixel", "did you mean 'pixels'"),
        ("pixels:3", "did you mean 'pixels'"),
        ("torchvision", "did you mean 'torchvision:NAME'"),
        ("torchvision:", "did you mean 'torchvision:NAME'"),
        (":x", "choose one of"),
        ("", "choose one of"),
        ("torchvision:resnet81", "did you mean 'resnet18'"),
        ("torchvision:squeezenet1_0", "ends in a linear layer, got 'squeezenet1_0'"),
        ("torchvision:resnet18=nowhere.pth", "got 'nowhere.pth', which is no file"),
    ],
)
def test_bad_names(noise: ImageSet, name: str, cure: str) -> None:
    with pytest.raises(SettingError, match=cure):
        features(name, noise)


def test_resolved_names_hold_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolved("a/b.npy") == str(tmp_path / "a/b.npy")
    assert resolved("torchvision:vgg16=w.pth") == f"torchvision:vgg16={tmp_path / 'w.pth'}"
    for name in ("pixels", "random", "torchvision:vgg16"):
        assert resolved(name) == name
    with pytest.raises(SettingError, match="did you mean 'random'"):
        resolved("ramdon")


@pytest.mark.parametrize(
    ("name", "head", "width"),
    [("resnet18", "fc", 512), ("mobilenet_v3_small", "classifier.3", 1024)],
)
def test_a_backbone_is_the_network_without_its_head(
    digits: ImageSet, tmp_path: Path, name: str, head: str, width: int
) -> None:
    torch.manual_seed(0)
    network = get_model(name, weights=None, num_classes=7)
    # Away from its initial values, so that a difference between eval and train mode shows.
    for key, buffer in network.named_buffers():
        if key.endswith("running_var"):
            buffer.uniform_(0.1, 0.5)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    images = digits.take(range(0, 50, 5))
    x = features(f"torchvision:{name}={tmp_path / 'weights.pth'}", images)
    assert x.dtype == np.float32 and x.shape == (10, width)

    network.set_submodule(head, nn.Identity())
    prepare = models.get_model_weights(name).DEFAULT.transforms()
    with torch.no_grad():
        batch = torch.from_numpy(images.images).permute(0, 3, 1, 2)
        expected = network.eval()(prepare(batch)).numpy()
    np.testing.assert_allclose(x, centred(expected), atol=1e-5)


def test_weights_in_names_of_an_older_pytorch(tmp_path: Path, noise: ImageSet) -> None:
    state = get_model("densenet121", weights=None).state_dict()
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in state.items()
    }
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "weights.pth")
    path = f"torchvision:densenet121={tmp_path / 'weights.pth'}"
    assert features(path, noise.take([0, 1])).shape == (2, 1024)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"fc.weight": torch.zeros(3, 3)}, "must be those of torchvision's resnet18, got others"),
        ({"epoch": 3}, "tensors by name, got something else"),
        (nn.Linear(2, 2), "cannot be read without running what it holds"),
        (b"junk", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_bad_weights(noise: ImageSet, tmp_path: Path, content: Any, sentence: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(SettingError, match=sentence) as caught:
        features(f"torchvision:resnet18={path}", noise)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("invalid hash")])
def test_weights_that_cannot_be_downloaded(
    noise: ImageSet, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(
        SettingError, match=rf"{error}. Give a file: torchvision:resnet18=WEIGHTS.pth .*https:"
    ):
        features("torchvision:resnet18", noise)
