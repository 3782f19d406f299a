"""How time and memory grow with size: a row of `MEASUREMENTS` is a table of `bench scaling`."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from taskdisc.benches import searches
from taskdisc.labelings import n_positives, random_labelings
from taskdisc.processes import in_own_process, resident_bytes


@dataclass(frozen=True)
class Measurement:
    """What is done at several sizes.

    Attributes:
        title: What is measured, for a heading.
        size: What the sizes count.
        sizes: In rising order.
        prepare: Makes, for a size, what is timed; of a module, as another process calls it.
    """

    title: str
    size: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], Callable[[], object]]


@dataclass(frozen=True)
class Cost:
    """What one size costs.

    Attributes:
        size: As in `Measurement.sizes`.
        seconds: CPU time of each round.
        peak_mib: The most memory that the process held, imports included.
    """

    size: int
    seconds: tuple[float, ...]
    peak_mib: float


def costs(measurement: Measurement, rounds: int) -> Iterator[Cost]:
    """The cost of each size, each measured in a process of its own after a run that is not."""
    for size in measurement.sizes:
        yield in_own_process(cost, measurement.prepare, size, rounds)


def cost(prepare: Callable[[int], Callable[[], object]], size: int, rounds: int) -> Cost:
    """The cost of one size in this process; the first run, which imports, is not timed."""
    run = prepare(size)
    run()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    _, peak = resident_bytes()
    return Cost(size, tuple(seconds), peak / 2**20)


def growth(before: Cost, after: Cost) -> float:
    """The power of size that time grows with from one size to the next; 1 is in proportion."""
    times = [statistics.median(one.seconds) for one in (after, before)]
    return math.log(times[0] / times[1]) / math.log(after.size / before.size)


def table(measurement: Measurement, found: list[Cost]) -> str:
    """The costs as a table in Markdown, times as median (lowest–highest)."""
    lines = [
        f"| {measurement.size} | CPU seconds | time grows with size to the power | peak MiB |",
        "|---|---|---|---|",
    ]
    for number, one in enumerate(found):
        power = f"{growth(found[number - 1], one):.2f}" if number else "–"
        median, lowest, highest = statistics.median(one.seconds), min(one.seconds), max(one.seconds)
        seconds = f"{median:.3g} ({lowest:.3g}–{highest:.3g})"
        lines.append(f"| {one.size:,} | {seconds} | {power} | {one.peak_mib:.0f} |")
    return "\n".join(lines)


def _scoring(n_images: int, n_labelings: int, n_splits: int) -> Callable[[], object]:
    """Trained scores of random labelings of noise, 10 steps, all images used by every split."""
    from taskdisc.pool import Pool
    from taskdisc.taskness.protocol import Protocol
    from taskdisc.taskness.score import TrainedScorer

    images, rng = searches.noise(n_images), np.random.default_rng(0)
    labelings = random_labelings(n_labelings, n_images, n_positives(n_images, 4), rng)
    protocol = Protocol(n_splits=n_splits, n_steps=10, most_images=0)
    scorer = TrainedScorer(images, protocol, 0, Pool(1, "cpu"))
    return lambda: list(scorer.score(labelings))


def _by_images(size: int) -> Callable[[], object]:
    return _scoring(size, 1, 5)


def _by_labelings(size: int) -> Callable[[], object]:
    return _scoring(50, size, 5)


def _by_splits(size: int) -> Callable[[], object]:
    return _scoring(50, 1, size)


MEASUREMENTS: list[Measurement] = [
    Measurement(
        "Trained score of 1 labeling, 5 splits of 10 steps",
        "images",
        (50, 200, 1000, 5000),
        _by_images,
    ),
    Measurement(
        "Trained scores of 50 images, 5 splits of 10 steps",
        "labelings",
        (4, 16, 64),
        _by_labelings,
    ),
    Measurement(
        "Trained score of 1 labeling of 50 images, 10 steps",
        "splits",
        (5, 20, 80, 320),
        _by_splits,
    ),
    Measurement(
        "The closed form of images, and 100 labelings by swap search",
        "images",
        (50, 500, 5000),
        searches.swapping_images,
    ),
    Measurement(
        "The closed form of 500 images, and tasks at 1:1 by swap search, 0.3 from each other",
        "tasks",
        (4, 16, 64, 256),
        searches.swapping_tasks,
    ),
    Measurement(
        "Search of 50 images by the closed form, random proposals, with its journal",
        "trials",
        (1_000, 10_000, 100_000, 1_000_000),
        searches.searching_at_random,
    ),
    Measurement(
        "The same by TwoPointsDE", "trials", (1_000, 10_000), searches.searching_by_evolution
    ),
    Measurement(
        "Resuming such a search at random, all of whose trials are in the journal",
        "trials",
        (1_000, 10_000, 100_000),
        searches.resuming,
    ),
    Measurement("Opening a journal", "trials", (10_000, 100_000, 1_000_000), searches.opening),
    Measurement(
        f"{searches.N_APPENDS} appends to a journal",
        "trials",
        (10_000, 100_000, 1_000_000),
        searches.appending,
    ),
]
