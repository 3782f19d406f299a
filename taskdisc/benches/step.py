"""Where the time of a training step goes, and how far PyTorch alone could get."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from taskdisc.benches.score import train_plainly
from taskdisc.pool import one_thread
from taskdisc.taskness.compiled import left_out, library
from taskdisc.taskness.convolutions import Patches, lay_out
from taskdisc.taskness.lenet import initial_parameters
from taskdisc.taskness.population import fit, train
from taskdisc.taskness.protocol import Protocol, validation_masks
from taskdisc.taskness.score import POPULATION

N_IMAGES = 50
N_STEPS = 20
PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_")
"""PyTorch's names of products of matrices."""


def bench_step(rounds: int) -> None:
    """Print the time of a step of one population, by one thread, in several ways.

    All take turns within each round. "No validation image back" is the sum of a step on the images
    of the train split and a forward pass of the others: what leaving them out would take if it cost
    nothing else. "Products alone" is the part of a step that products of matrices take.
    """
    images, labels, validation = _problem()
    n_train = int((~validation[0]).sum())
    with one_thread():
        sides: dict[str, Callable[[], float]] = {
            f"{POPULATION} plain networks": lambda: _plain(images, labels, validation)
        }
        if library() is not None:
            sides["population, compiled"] = _timed(lay_out(images), labels, validation)
        with left_out():
            whole = lay_out(images)
            part, rest = lay_out(images[:n_train]), lay_out(images[n_train:])
        alone = _timed(whole, labels, validation)
        none = np.zeros_like(validation)
        there = _timed(part, labels[:, :n_train], none[:, :n_train])
        forth = _timed(rest, labels[:, n_train:], none[:, n_train:], backward=False)
        sides["PyTorch alone"] = alone
        sides["… no validation image back"] = lambda: there() + forth()
        sides["… products alone"] = lambda: _products(alone)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds + 1):
            for name, side in sides.items():
                once = side()
                if number:  # the first lays memory out
                    seconds[name].append(once)
    print(
        f"a step of {POPULATION} networks on {N_IMAGES} images, {n_train} of them to train on, "
        f"one thread, {rounds} rounds after a warm-up"
    )
    plain = statistics.median(next(iter(seconds.values())))
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(
            f"  {name:28}{1000 * middle:6.2f} ms (from {1000 * min(taken):.2f} to "
            f"{1000 * max(taken):.2f}), {plain / middle:.2f} times as fast as plain"
        )


def _problem() -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Standardised noise, a labeling for each network, and the splits of stratified folds."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.standard_normal((N_IMAGES, 3, 32, 32), dtype=np.float32))
    labeling = (np.arange(N_IMAGES) % 5 == 0).astype(np.uint8)
    validation = validation_masks(Protocol(n_splits=POPULATION), labeling, [rng])
    return images, np.tile(labeling, (POPULATION, 1)), validation


def _timed(
    patches: Patches, labels: np.ndarray, validation: np.ndarray, *, backward: bool = True
) -> Callable[[], float]:
    """A function that trains and returns the seconds of a step."""
    shares = torch.from_numpy(~validation / (~validation).sum(axis=1, keepdims=True)).float()
    parameters = initial_parameters(list(range(len(labels))))
    y = torch.from_numpy(labels)

    def step() -> float:
        start = time.perf_counter()
        if backward:
            fit(patches, y, shares, parameters, n_steps=N_STEPS)
        else:
            for _ in range(N_STEPS):
                train(patches, y, shares, parameters, n_steps=0)
        return (time.perf_counter() - start) / N_STEPS

    return step


def _plain(images: Tensor, labels: np.ndarray, validation: np.ndarray) -> float:
    start = time.perf_counter()
    for seed, (labeling, held_out) in enumerate(zip(labels, validation, strict=True)):
        train_plainly(images.numpy(), labeling, held_out, seed, Protocol(n_steps=N_STEPS))
    return (time.perf_counter() - start) / N_STEPS


class _Products(TorchDispatchMode):
    """Within it, `seconds` adds up what products of matrices take."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in PRODUCTS:
            self.seconds += time.perf_counter() - start
        return result


def _products(run: Callable[[], float]) -> float:
    with _Products() as products:
        run()
    return products.seconds / N_STEPS
