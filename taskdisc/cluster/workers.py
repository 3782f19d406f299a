"""Which workers of a cluster there are, which of them may get work, and on which device."""

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskdisc.cluster.on_worker import environment, facts
from taskdisc.cluster.scheduler import Scheduler, say
from taskdisc.errors import SettingError

if TYPE_CHECKING:
    from distributed import Future

LOOK_S = 1.0
"""Seconds between two looks at which workers there are."""


@dataclass(frozen=True)
class Worker:
    """A worker that may get work.

    Attributes:
        device: What it works on: `cpu` or `cuda:<index>`, as it counts them.
        gpu: The same GPU by host and a name that all workers of the host know it by.
    """

    device: str
    gpu: tuple[str, str] | None = None


class Workers:
    """The workers of a scheduler.

    Attributes:
        fit: By address, those that give the results of this process.
        paused: Addresses of those to which Dask gives nothing for now, for lack of memory.
        on_cpu: Whether all work on CPUs.

    Args:
        scheduler: It is waited for a first worker.
        device: `auto`, `cpu` or `cuda`, see `pool.Cluster`.

    Raises:
        SettingError: no worker is fit.
        RunFailedError: the scheduler was lost.
    """

    def __init__(self, scheduler: Scheduler, device: str) -> None:
        self.fit: dict[str, Worker] = {}
        self.paused: set[str] = set()
        self._scheduler = scheduler
        self._unfit: dict[str, str] = {}  # address -> why
        threads = self._threads()
        if not threads:
            say(f"the cluster at {scheduler.address} has no worker yet; waiting for one")
        while not (new := self._new(threads)):
            time.sleep(LOOK_S / 2)
            threads = self._threads()
        self.on_cpu = _on_cpu(device, new)
        self._take_in(new, threads)
        self._looked = time.monotonic()
        if not self.fit:
            raise SettingError(
                f"`cluster` must have a worker that fits, got '{scheduler.address}': "
                f"{next(iter(self._unfit.values()))}."
            )

    def look(self) -> bool:
        """Look again, if the last look is `LOOK_S` ago; whether that is so.

        Raises:
            RunFailedError: the scheduler was lost.
        """
        self._scheduler.check()
        if time.monotonic() < self._looked + LOOK_S:
            return False
        some = bool(self.fit)
        threads = self._threads()
        self._take_in(self._new(threads), threads)
        if some and not self.fit:
            say(f"the cluster at {self._scheduler.address} has no worker any more; waiting for one")
        self._looked = time.monotonic()
        return True

    def holds_back(self, worker: str, future: "Future") -> bool:
        """Whether a worker was paused before it began with this work."""
        if worker not in self.paused or future.done():
            return False
        with self._scheduler.reached() as client:
            try:
                return not client.call_stack([future])
            except (KeyError, OSError):  # it has just ended, or its worker has
                return False

    def _threads(self) -> dict[str, int]:
        """The threads of each worker by its address; those that are gone are forgotten."""
        with self._scheduler.reached() as client:
            threads: dict[str, int] = client.nthreads()
            running = client.sync(client.scheduler.ncores_running)
        known: dict[str, Any]
        for known in (self.fit, self._unfit):
            for address in set(known) - set(threads):
                del known[address]
        paused = set(self.fit) - set(running)
        if paused - self.paused:
            say(
                f"no work for now for {_some(paused - self.paused)}: Dask has paused it, mostly "
                "for lack of memory; start workers with more by: dask worker --memory-limit"
            )
        self.paused = paused
        return threads

    def _new(self, threads: dict[str, int]) -> dict[str, Any]:
        """What those workers say of themselves that are not known yet; an exception or so."""
        new = [a for a in threads if a not in self.fit and a not in self._unfit]
        if not new:
            return {}
        with self._scheduler.reached() as client:
            said: dict[str, Any] = client.run(facts, workers=new, on_error="return")
        # Who cannot be reached is asked again at the next look.
        return {a: what for a, what in said.items() if not isinstance(what, OSError)}

    def _take_in(self, new: dict[str, Any], threads: dict[str, int]) -> None:
        unfit = {address: why for address, said in new.items() if (why := self._why_unfit(said))}
        self._unfit.update(unfit)
        if unfit:  # of many that are alike one is enough
            say(f"no work for {_some(unfit)}: {next(iter(unfit.values()))}")
        for address, said in new.items():
            if address not in unfit:
                self.fit[address] = self._placed(said)
        several = [address for address in new if address in self.fit and threads[address] > 1]
        if several:
            say(
                f"one item at a time for all threads of {_some(several)}; start one worker per "
                "core, with one thread each"
            )

    def _placed(self, said: dict[str, Any]) -> Worker:
        """A new worker, on that of its GPUs that fewest workers have, the first of these."""
        if self.on_cpu:
            return Worker("cpu")
        taken = Counter(worker.gpu for worker in self.fit.values())
        gpus = [(said["host"], name) for name in said["gpus"]]
        gpu = min(gpus, key=lambda name: taken[name])
        return Worker(f"cuda:{gpus.index(gpu)}", gpu)

    def _why_unfit(self, said: Any) -> str:
        """Why a worker must not be given work; empty if it may."""
        if isinstance(said, ModuleNotFoundError):
            return f"it lacks a package ({said}); start it from the same environment"
        if not isinstance(said, dict):
            return f"it does not answer as it should ({type(said).__name__}: {said})"
        for name, ours in environment().items():
            theirs = said["environment"].get(name)
            if theirs != ours:
                return (
                    f"it has {name} {theirs} and this process has {ours}; start it from the same "
                    "environment"
                )
        if not self.on_cpu and not said["gpus"]:
            return "it has no GPU, and the work is for GPUs"
        return ""


def _on_cpu(device: str, new: dict[str, Any]) -> bool:
    """Whether the work is done on CPUs, by what the workers have that are there by now."""
    if device != "auto":
        return device == "cpu"
    answers = [said for said in new.values() if isinstance(said, dict)]
    n_gpus = sum(bool(said["gpus"]) for said in answers)
    if 0 < n_gpus < len(answers):
        say(
            f"{n_gpus} of {len(answers)} workers have a GPU, so all work is done on CPUs, that it "
            "be rounded alike; --device cuda is for those with a GPU alone"
        )
    return n_gpus < max(len(answers), 1)


def _some(addresses: Collection[str]) -> str:
    first, *others = sorted(addresses)
    return f"{first} and {len(others)} more" if others else first
