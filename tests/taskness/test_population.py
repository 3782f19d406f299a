"""The trainer by hand against a plain network and autograd."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import vector_to_parameters
from torch.utils._python_dispatch import TorchDispatchMode

from taskdisc.images import ImageSet
from taskdisc.taskness import compiled
from taskdisc.taskness.convolutions import lay_out
from taskdisc.taskness.lenet import LeNet, initial_parameters, standardised
from taskdisc.taskness.population import _started, train


def use(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the convolutions compiled or in PyTorch, whatever was built."""
    if way == "compiled" and compiled.library() is None:
        pytest.skip("the compiled convolutions were not built: there was no C compiler")
    if way == "plain":
        monkeypatch.setattr(compiled, "takes", lambda images: False)


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use(request.param, monkeypatch)


def one_by_one(
    images: Tensor, labelings: Tensor, weights: Tensor, parameters: Tensor, n_steps: int, lr: float
) -> Tensor:
    """Losses [n_steps + 1, n_models, n_images] of one `LeNet` after the other, with autograd."""
    losses = torch.empty(n_steps + 1, *labelings.shape, dtype=images.dtype)
    for m, labels in enumerate(labelings):
        model = LeNet().to(images.dtype)
        vector_to_parameters(parameters[m].clone(), model.parameters())
        adam = torch.optim.Adam(model.parameters(), lr=lr)
        for step in range(n_steps + 1):
            per_image = F.cross_entropy(model(images), labels.long(), reduction="none")
            losses[step, m] = per_image.detach()
            adam.zero_grad()
            (per_image * weights[m]).sum().backward()
            adam.step()
    return losses


def problem(
    n_models: int, n_images: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Random labelings, weights of a train split (0 for a third of the images) and networks."""
    rng = np.random.default_rng(seed)
    labelings = torch.from_numpy(rng.integers(0, 2, (n_models, n_images)).astype(np.uint8))
    chosen = rng.random((n_models, n_images)) < 2 / 3
    chosen[:, 0] = True
    weights = torch.from_numpy(chosen / chosen.sum(axis=1, keepdims=True)).to(dtype)
    return labelings, weights, initial_parameters(range(seed, seed + n_models), dtype)


def noise(n_images: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n_images, 32, 32, 3), dtype=np.uint8)


def blocks(n_images: int) -> np.ndarray:
    """Constant squares of 8 x 8 pixels, black or white: every pooling window has ties."""
    small = np.random.default_rng(2).integers(0, 2, (n_images, 4, 4, 3), dtype=np.uint8) * 255
    return small.repeat(8, axis=1).repeat(8, axis=2)


def black_but_one_pixel(n_images: int) -> np.ndarray:
    images = np.zeros((n_images, 32, 32, 3), dtype=np.uint8)
    images[np.arange(n_images), np.arange(n_images) * 3, 31] = 255
    return images


def test_equals_autograd_for_any_chunk() -> None:
    images = standardised(noise(7), torch.float64)
    labelings, weights, parameters = problem(3, 7, torch.float64)
    expected = one_by_one(images, labelings, weights, parameters, 30, 1e-3)
    for chunk in (1, 3, 7, 25, None):
        losses = train(lay_out(images, chunk), labelings, weights, parameters, n_steps=30, lr=1e-3)
        assert torch.allclose(losses, expected, rtol=0, atol=1e-7), f"{chunk=}"


@pytest.mark.parametrize("make", [noise, blocks, black_but_one_pixel, np.zeros_like])
def test_equals_autograd_on_images_with_ties(make: Any) -> None:
    pixels = make(noise(5)) if make is np.zeros_like else make(5)
    images = standardised(pixels, torch.float64)
    labelings, weights, parameters = problem(2, 5, torch.float64, seed=3)
    expected = one_by_one(images, labelings, weights, parameters, 30, 3e-3)
    losses = train(lay_out(images, 2), labelings, weights, parameters, n_steps=30, lr=3e-3)
    assert torch.allclose(losses, expected, rtol=0, atol=1e-7)


def test_equals_autograd_on_one_image_and_one_network() -> None:
    images = standardised(noise(1), torch.float64)
    labelings, weights, parameters = problem(1, 1, torch.float64)
    expected = one_by_one(images, labelings, weights, parameters, 20, 1e-3)
    losses = train(lay_out(images), labelings, weights, parameters, n_steps=20, lr=1e-3)
    assert losses.shape == (21, 1, 1)
    assert torch.allclose(losses, expected, rtol=0, atol=1e-7)


# In float32 plain PyTorch itself is up to 3e-4 from float64 here: near-ties in pooling windows fall
# the other way, and 100 steps enlarge that.
@pytest.mark.parametrize(
    ("dtype", "way", "tolerance"),
    [
        (torch.float64, "plain", 1e-9),
        (torch.float32, "plain", 2e-3),
        (torch.float32, "compiled", 2e-3),
    ],
)
def test_equals_autograd_on_classes_of_digits(
    digits: ImageSet,
    class_labeling: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    way: str,
    tolerance: float,
) -> None:
    use(way, monkeypatch)
    chosen = slice(0, 50, 2)
    validation = torch.zeros(2, 25, dtype=dtype)
    validation[0, ::5] = validation[1, 2::5] = 1
    weights = (1 - validation) / 20
    two = np.stack([class_labeling, np.roll(class_labeling, 10)])
    labelings = torch.from_numpy(np.ascontiguousarray(two[:, chosen]))
    plain = (labelings, weights.double(), initial_parameters([8, 9], torch.float64))
    images = digits.images[chosen]
    expected = one_by_one(standardised(images, torch.float64), *plain, 100, 1e-3)
    patches = lay_out(standardised(images, dtype), 10)
    losses = train(patches, labelings, weights, initial_parameters([8, 9], dtype), n_steps=100)
    curves, expected_curves = ((x * validation).sum(dim=2) / 5 for x in (losses, expected))
    assert torch.allclose(curves.double(), expected_curves, rtol=0, atol=tolerance)
    assert expected_curves[-1, 0] < 0.1 < expected_curves[0, 0]  # it did learn


# Training enlarges what a sum in another order changes in the last bits.
@pytest.mark.parametrize(
    ("dtype", "n_steps", "tolerance"), [(torch.float64, 30, 1e-9), (torch.float32, 8, 1e-5)]
)
def test_networks_together_equal_each_alone(
    dtype: torch.dtype, n_steps: int, tolerance: float
) -> None:
    patches = lay_out(standardised(noise(30), dtype))
    labelings, weights, parameters = problem(4, 30, dtype)
    together = train(patches, labelings, weights, parameters, n_steps=n_steps)
    for m in range(4):
        part = slice(m, m + 1)
        alone = train(patches, labelings[part], weights[part], parameters[part], n_steps=n_steps)
        assert torch.allclose(together[:, part], alone, rtol=0, atol=tolerance)


def losses_and_gradients(
    images: Tensor, given: tuple[Tensor, Tensor, Tensor], chunk: int
) -> tuple[Tensor, Tensor]:
    """Before the first step: [n_chunks, n_models, chunk] and [n_models, 61326]."""
    flat, _, population = _started(lay_out(images, chunk), *given, 1e-3)
    losses = images.new_empty(population.n_chunks, len(flat), chunk)
    population.pass_over(losses, backward=True)
    return losses, flat.grad


@pytest.mark.parametrize("make", [noise, blocks, black_but_one_pixel])
@pytest.mark.parametrize(("n_models", "chunk"), [(1, 7), (5, 3), (6, 4), (11, 1)])
def test_compiled_equals_plain(
    monkeypatch: pytest.MonkeyPatch, make: Any, n_models: int, chunk: int
) -> None:
    images, given = standardised(make(7)), problem(n_models, 7)
    found = []
    for name in ("compiled", "plain"):
        with monkeypatch.context() as patched:
            use(name, patched)
            found.append(losses_and_gradients(images, given, chunk))
    for compiled_one, plain_one in zip(*found, strict=True):
        scale = plain_one.abs().max()
        assert scale > 0
        assert torch.allclose(compiled_one, plain_one, rtol=0, atol=1e-5 * float(scale))


@pytest.mark.usefixtures("way")
def test_a_network_that_diverged_has_no_finite_loss() -> None:
    labelings, weights, parameters = problem(2, 4)
    parameters[0, 0] = torch.nan
    losses = train(lay_out(standardised(noise(4))), labelings, weights, parameters, n_steps=2)
    assert losses[:, 0].isnan().all()
    assert losses[:, 1].isfinite().all()


@pytest.mark.usefixtures("way")
def test_images_of_weight_0_do_not_matter_to_the_others() -> None:
    labelings, weights, parameters = problem(2, 8)
    weights[:, 5] = 0
    flipped = labelings.clone()
    flipped[:, 5] = 1 - flipped[:, 5]
    patches = lay_out(standardised(noise(8)), 3)
    losses = [train(patches, y, weights, parameters, n_steps=10) for y in (labelings, flipped)]
    others = [0, 1, 2, 3, 4, 6, 7]
    assert torch.equal(losses[0][:, :, others], losses[1][:, :, others])
    assert not torch.equal(losses[0][:, :, 5], losses[1][:, :, 5])


@pytest.mark.usefixtures("way")
def test_row_0_is_before_the_first_step_and_no_step_is_enough() -> None:
    patches = lay_out(standardised(noise(4)))
    labelings, weights, parameters = problem(2, 4)
    short = train(patches, labelings, weights, parameters, n_steps=0)
    long = train(patches, labelings, weights, parameters, n_steps=3)
    assert torch.equal(short[0], long[0])


@pytest.mark.usefixtures("way")
def test_nothing_that_is_passed_in_changes() -> None:
    patches = lay_out(standardised(noise(4)))
    given = (patches.chunks, *problem(2, 4))
    before = [tensor.clone() for tensor in given]
    first = train(patches, *given[1:], n_steps=5)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    assert torch.equal(train(patches, *given[1:], n_steps=5), first)
    assert not first.requires_grad


class Counting(TorchDispatchMode):
    """Counts the operators that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operators(n_models: int, n_steps: int) -> Counter[str]:
    patches = lay_out(standardised(noise(6)), 3)
    given = problem(n_models, 6)
    with Counting() as counting:
        train(patches, *given, n_steps=n_steps)
    return counting.seen


@pytest.mark.usefixtures("way")
def test_the_operators_of_a_step_do_not_grow_with_the_networks() -> None:
    per_step = [operators(m, 4) - operators(m, 3) for m in (2, 8)]
    assert per_step[0].total() > 20
    assert per_step[0] == per_step[1]


@pytest.mark.usefixtures("way")
def test_no_step_waits_for_the_device() -> None:
    waiting = {"item", "_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "_to_copy"}
    step = operators(2, 4) - operators(2, 3)
    assert not waiting & set(step)
