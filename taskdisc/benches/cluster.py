"""How well work spreads over a cluster: measured with two workers, worked out for a thousand."""

import heapq
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taskdisc.cluster import Cluster
from taskdisc.cluster.here import ClusterHere
from taskdisc.config import ImagesSettings
from taskdisc.discovery.run import load_selected
from taskdisc.labelings import n_positives, random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.taskness.protocol import PROTOCOLS
from taskdisc.taskness.score import TrainedScorer

N_EMPTY = 200
"""Items without work, by which the cost of an item itself is measured."""

PROTOCOL = PROTOCOLS["stratified"]

N_WORKERS = (1, 3, 10, 30, 100, 300, 1000)
"""For which it is worked out how much faster they are than one."""


@dataclass(frozen=True)
class Costs:
    """What spreading work costs, and the work itself.

    Attributes:
        training: Processor time of one network [s].
        item: Processor time of client and scheduler per item [s]; they do one item after another.
        trip: From a worker's result to its next item, beside that [s].
        bytes_sent: With an item of one labeling.
    """

    training: float
    item: float
    trip: float
    bytes_sent: int


def bench_cluster(rounds: int, n_labelings: int) -> Costs:
    """Print how much faster two workers of this machine score than one, and what an item costs.

    Beside it stands the same of this machine's own pool, for two processes may not be twice as fast
    as one here, whoever spreads the work. The sides take turns within each round.
    """
    images = load_selected(ImagesSettings(), Progress())
    rng = np.random.default_rng(0)
    labelings = random_labelings(n_labelings, len(images), n_positives(len(images), 4), rng)
    print(
        f"{len(images)} images, {n_labelings} labelings a round of {PROTOCOL.n_splits} trainings "
        f"each, {rounds} rounds after a warm-up, workers of one thread on this machine, whose "
        f"load was {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        ClusterHere(Path(one), 1) as alone,
        ClusterHere(Path(two), 2) as pair,
    ):
        cluster, both = Cluster(alone.address, "cpu"), Cluster(pair.address, "cpu")
        while both.jobs < 2:
            list(both.map(_nothing, range(10)))
        sides = {"cluster": (cluster, both), "pool": (Pool(1, "cpu"), Pool(2, "cpu"))}
        scorers = {
            name: [TrainedScorer(images, PROTOCOL, 0, pool) for pool in pools]
            for name, pools in sides.items()
        }
        seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
        busy = 0.0
        for number in range(rounds + 1):
            for name, pair_of in scorers.items():
                before = time.process_time()
                times = [_seconds(scorer, labelings) for scorer in pair_of]
                if number:  # the first starts workers and lays images out
                    seconds[name].append(times)
                    # A pool of one works in this process; one of two leaves it idle.
                    busy += time.process_time() - before if name == "pool" else 0.0
        bytes_sent = cluster.bytes_sent // (n_labelings * (rounds + 1))
        item, trip = _empty_item(cluster, alone.scheduler.pid)
    for name, rows in seconds.items():
        rates = [n_labelings / statistics.median(column) for column in zip(*rows, strict=True)]
        print(
            f"{name}: {rates[0]:.2f} labelings/s by one worker, {rates[1]:.2f} by two; "
            f"efficiency {_spread([a / b / 2 for a, b in rows])}"
        )
    ratios = [
        (c[0] / c[1]) / (p[0] / p[1])
        for c, p in zip(seconds["cluster"], seconds["pool"], strict=True)
    ]
    print(f"cluster's efficiency over the pool's: {_spread(ratios)}")
    training = busy / (rounds * n_labelings * PROTOCOL.n_splits)
    costs = Costs(training, item, trip, bytes_sent)
    print(
        f"a training takes {1000 * costs.training:.1f} ms; an item costs {1000 * item:.1f} ms of "
        f"client and scheduler, and {1000 * trip:.1f} ms more until its worker has the next one; "
        f"{bytes_sent} bytes are sent with it, the {images.images.nbytes} of the images once"
    )
    return costs


def simulate(costs: Costs) -> None:
    """Print how much faster many workers are than one, worked out from what was measured.

    `seconds_of` says how. A search waits for all of a batch before it asks for the next one.
    Confirmation is of three labelings on 64 splits each, then of 300 random ones on 10 each.
    """
    batches = {f"search, batches of {n}": [(n, PROTOCOL.n_splits)] for n in (30, 100, 1000)}
    batches["confirmation of 3"] = [(3, 64), (300, 10)]
    print("\nworked out from these: times as fast as one worker")
    print(f"{'workers':24}" + "".join(f"{n:>7}" for n in N_WORKERS))
    for name, parts in batches.items():
        took = [
            sum(
                seconds_of(n, k * costs.training + costs.trip, costs.item, workers)
                for n, k in parts
            )
            for workers in N_WORKERS
        ]
        print(f"{name:24}" + "".join(f"{took[0] / t:7.1f}" for t in took))
    most = (PROTOCOL.n_splits * costs.training + costs.trip) / costs.item + 1
    print(
        f"client and scheduler keep {most:.0f} workers busy with items of {PROTOCOL.n_splits} "
        "trainings, and in proportion with longer ones"
    )


def seconds_of(n_items: int, work: float, item: float, n_workers: int) -> float:
    """Time [s] in which a cluster does some items that are all there at its start.

    Each item first takes `item` of the client and scheduler, which handle one at a time, then
    `work` of the first worker that is free. For equal items this is about
    max(n_items · item + work, ⌈n_items / n_workers⌉ · (item + work)): scaling stops at n_items
    workers, or at 1 + work / item of them, whichever is fewer.

    Args:
        n_items: At least 1.
        work: Of a worker, per item [s].
        item: Of the client and scheduler, per item [s].
        n_workers: At least 1.
    """
    free = [0.0] * min(n_workers, n_items)
    handed_out = 0.0
    for _ in range(n_items):
        handed_out = max(handed_out, heapq.heappop(free)) + item
        heapq.heappush(free, handed_out + work)
    return max(free)


def _seconds(scorer: TrainedScorer, labelings: np.ndarray) -> float:
    start = time.perf_counter()
    list(scorer.score(labelings))
    return time.perf_counter() - start


def _empty_item(cluster: Cluster, scheduler: int) -> tuple[float, float]:
    """Processor time of client and scheduler [s] per item without work, and the time beside it."""
    import psutil  # comes with Dask

    def busy() -> float:
        times = psutil.Process(scheduler).cpu_times()
        return time.process_time() + times.user + times.system

    start, before = time.perf_counter(), busy()
    list(cluster.map(_nothing, range(N_EMPTY)))
    item = (busy() - before) / N_EMPTY
    return item, max(0.0, (time.perf_counter() - start) / N_EMPTY - item)


def _nothing(item: int, device: str) -> int:
    return item


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} (from {min(values):.2f} to {max(values):.2f})"
