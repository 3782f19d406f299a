import numpy as np
import pytest
import torch
from torch import nn

from taskdisc.taskness.lenet import N_PARAMS, SHAPES, LeNet, initial_parameters, standardised


@pytest.mark.parametrize(("n_outputs", "n_params"), [(2, 61_326), (10, 62_006)])
def test_it_has_the_parameters_of_the_source_work(n_outputs: int, n_params: int) -> None:
    assert sum(p.numel() for p in LeNet(n_outputs).parameters()) == n_params


def test_flat_vectors_hold_the_layers_in_the_order_of_the_module() -> None:
    assert {name: tuple(p.shape) for name, p in LeNet().named_parameters()} == SHAPES
    assert list(SHAPES) == [name for name, _ in LeNet().named_parameters()]
    assert N_PARAMS == 61_326


def test_it_computes_conv_pool_conv_pool_and_three_layers() -> None:
    model = LeNet(3)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = nn.Sequential(
        *(model.conv1, nn.ReLU(), nn.MaxPool2d(2), model.conv2, nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), model.fc1, nn.ReLU(), model.fc2, nn.ReLU(), model.fc3),
    )
    assert torch.equal(model(images), plain(images))


def test_a_seed_names_one_network_wherever_it_stands() -> None:
    together = initial_parameters([3, 1, 2])
    assert torch.equal(together[1], initial_parameters([1])[0])
    assert torch.equal(together, initial_parameters([3, 1, 2]))
    assert len({tuple(row[:5].tolist()) for row in together}) == 3


def test_drawing_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    initial_parameters([5])
    assert torch.equal(torch.rand(1), expected)


def test_float64_parameters_are_the_float32_ones() -> None:
    seeds = [0, 2**32 - 1]
    assert torch.equal(initial_parameters(seeds, torch.float64), initial_parameters(seeds).double())


def test_initial_parameters_are_uniform_within_one_over_root_fan_in() -> None:
    flat = initial_parameters(range(20))
    start = 0
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        layer, start = flat[:, start : start + size], start + size
        bound = int(np.prod(SHAPES[name.replace("bias", "weight")][1:])) ** -0.5
        assert layer.abs().max() <= bound
        assert layer.abs().max() > 0.8 * bound, name
        # The mean of n uniform numbers in ±b has the standard deviation b / √(3n).
        assert layer.mean().abs() < 5 * bound / (3 * layer.numel()) ** 0.5, name
    assert start == flat.shape[1]


def test_standardised_images_have_mean_0_and_deviation_1_in_every_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    images[..., 1] //= 4
    x = standardised(images, torch.float64)
    assert x.shape == (6, 3, 32, 32)
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(x.std(dim=(0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))
    # Channels first, pixels in place.
    plain = images[4, 7, 9].astype(float)
    means = images.reshape(-1, 3).mean(axis=0)
    deviations = images.reshape(-1, 3).std(axis=0)
    assert np.allclose(x[4, :, 7, 9].numpy(), (plain - means) / deviations)


@pytest.mark.parametrize("value", [0, 1, 77, 179, 255])
def test_a_constant_channel_becomes_0(value: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    images[..., 2] = value
    assert standardised(images)[:, 2].abs().max() == 0


def test_images_that_cannot_be_written_are_taken_without_a_warning() -> None:
    images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    images.setflags(write=False)  # as those of a cache, or of a worker of the pool
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else torch says it once per process, to whichever test is first
    try:
        assert torch.equal(standardised(images), torch.zeros(2, 3, 32, 32))
    finally:
        torch.set_warn_always(always)
