"""How fast labelings are scored, against the plain way, both in one go on one machine."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from taskdisc.config import ImagesSettings
from taskdisc.discovery.run import load_selected
from taskdisc.labelings import n_positives, random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import PlainProgress, Progress
from taskdisc.taskness.compiled import left_out, library
from taskdisc.taskness.protocol import PROTOCOLS, Protocol
from taskdisc.taskness.score import Scores, TrainedScorer, splits_of

N_LABELINGS = 12
"""Labelings scored by each side in each round."""


def bench_score(rounds: int, jobs: int) -> None:
    """Print labelings scored per second by the population trainer and by a plain pool.

    The plain pool is joblib with one `nn.Module` at a time and one thread per worker, on the same
    splits and initialisations, for the default protocol and for the source work's number of steps.
    It is not charged for the baselines. Where the trainer's convolutions are compiled, it is also
    run without them. The sides take turns within each round, so that a drift of the machine meets
    all; a ratio is the median of the rounds' ratios.
    """
    images = load_selected(ImagesSettings(), Progress())
    rng = np.random.default_rng(0)
    labelings = random_labelings(N_LABELINGS, len(images), n_positives(len(images), 4), rng)
    pool = Pool(jobs, "cpu")
    default = PROTOCOLS["stratified"]
    print(
        f"{len(images)} images, {N_LABELINGS} labelings a round, {rounds} rounds after a warm-up, "
        f"{pool.jobs} worker(s) of one thread"
    )
    for protocol in (replace(default, n_steps=PROTOCOLS["source"].n_steps), default):
        scorers = {"population": TrainedScorer(images, protocol, 0, pool)}
        if library() is not None:
            alone = _PyTorchAlone(pool.jobs, "cpu")
            scorers["population, PyTorch alone"] = TrainedScorer(images, protocol, 0, alone)
        sides: dict[str, Callable[[], object]] = {
            name: partial(_all_scores, scorer, labelings) for name, scorer in scorers.items()
        }
        sides["plain pool"] = _plain_pool(images.images, labelings, protocol, pool.jobs)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        progress = PlainProgress()  # a bar's own thread would be timed too
        progress.start("bench", (rounds + 1) * len(sides), "timings")
        for round_number in range(rounds + 1):
            for name, side in sides.items():
                start = time.perf_counter()
                side()
                if round_number:  # the first starts the workers
                    seconds[name].append(time.perf_counter() - start)
                progress.advance(1)
        print(f"{protocol.n_splits} trainings of {protocol.steps(len(images))} steps per labeling:")
        for name, times in seconds.items():
            rates = sorted(N_LABELINGS / t for t in times)
            median = statistics.median(rates)
            speed = median * gigaflop(protocol, len(images))
            print(
                f"  {name}: {median:.2f} labelings/s (from {rates[0]:.2f} to {rates[-1]:.2f}), "
                f"{speed:.0f} GFLOP/s"
            )
        for name in scorers:
            ratios = sorted(
                b / a for a, b in zip(seconds[name], seconds["plain pool"], strict=True)
            )
            median = statistics.median(ratios)
            print(
                f"  {name}: {median:.2f} times the plain pool "
                f"(from {ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


class _PyTorchAlone(Pool):
    """A pool whose workers do without the compiled convolutions."""

    def map(
        self, work: Callable[[Any, str], Any], items: Iterable[Any], *, ordered: bool = True
    ) -> Iterator[Any]:
        """See `Pool`."""
        return super().map(partial(_in_pytorch, work), items, ordered=ordered)


def _in_pytorch(work: Callable[[Any, str], Any], item: Any, device: str) -> Any:
    with left_out():
        return work(item, device)


def _all_scores(scorer: TrainedScorer, labelings: np.ndarray) -> list[Scores]:
    return list(scorer.score(labelings))


def gigaflop(protocol: Protocol, n_images: int) -> float:
    """10⁹ floating-point operations that scoring one labeling takes a plain network.

    Two for each product of a weight: forward for all images, and backward for those of the train
    split twice, but once in the first layer, whose input needs no gradient. What takes no product
    is left out, and so are the baselines.
    """
    from taskdisc.taskness.lenet import SHAPES

    positions = {"conv1.weight": 28 * 28, "conv2.weight": 10 * 10}
    products = {
        name: int(np.prod(shape)) * positions.get(name, 1)
        for name, shape in SHAPES.items()
        if name.endswith("weight")
    }
    forward = sum(products.values())
    backward = 2 * forward - products["conv1.weight"]
    n_used = protocol.images(n_images)
    n_train = n_used - n_used / protocol.n_folds
    per_step = 2 * (n_used * forward + n_train * backward)
    return protocol.n_splits * protocol.steps(n_images) * per_step / 1e9


def _plain_pool(
    images: np.ndarray, labelings: np.ndarray, protocol: Protocol, jobs: int
) -> Callable[[], list[float]]:
    from joblib import Parallel, delayed

    from taskdisc.taskness.lenet import standardised

    x = standardised(images).numpy()
    calls = []
    for labeling in labelings:
        masks, seeds = splits_of(protocol, labeling, 0)
        calls += [
            delayed(train_plainly)(x, labeling, mask, int(seed), protocol)
            for mask, seed in zip(masks, seeds, strict=True)
        ]
    return lambda: Parallel(n_jobs=jobs, batch_size=protocol.n_splits)(calls)


def train_plainly(
    images: np.ndarray, labeling: np.ndarray, validation: np.ndarray, seed: int, protocol: Protocol
) -> float:
    """One network trained by autograd; its smallest validation cross-entropy."""
    import torch
    from torch.nn import functional as F

    from taskdisc.taskness.lenet import LeNet, initial_parameters

    torch.set_num_threads(1)
    x, y = torch.from_numpy(images), torch.from_numpy(labeling.astype(np.int64))
    train, held_out = torch.from_numpy(~validation), torch.from_numpy(validation)
    network = LeNet()
    torch.nn.utils.vector_to_parameters(initial_parameters([seed])[0], network.parameters())
    optimiser = torch.optim.Adam(network.parameters(), lr=protocol.lr)
    x_train, y_train, x_held_out, y_held_out = x[train], y[train], x[held_out], y[held_out]
    curve = []
    for _ in range(protocol.steps(len(images))):
        optimiser.zero_grad()
        F.cross_entropy(network(x_train), y_train).backward()
        optimiser.step()
        with torch.no_grad():
            curve.append(F.cross_entropy(network(x_held_out), y_held_out))
    return float(torch.stack(curve).min())
