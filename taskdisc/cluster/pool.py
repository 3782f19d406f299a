"""The pool of a cluster: each worker gets its next item when it has returned the last one."""

import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from taskdisc.cluster import on_worker
from taskdisc.cluster.packing import Arrays, packed
from taskdisc.cluster.scheduler import Scheduler
from taskdisc.cluster.workers import LOOK_S, Workers
from taskdisc.errors import RunFailedError, SettingError
from taskdisc.pool import Pool, in_order

if TYPE_CHECKING:
    from distributed import Future

T = TypeVar("T")
R = TypeVar("R")

FETCH_S = 5
"""Seconds to wait for a result before it is asked whether the worker that has it is still there."""

MOST_DEATHS = 4
"""Workers that may die of an item before it is given up."""


def pool_for(jobs: int = 0, device: str = "auto", cluster: str | None = None) -> Pool:
    """The workers of this machine, or those of a Dask scheduler where one is given.

    Raises:
        SettingError: as `Pool` and `Cluster`, or `jobs` and `cluster` are both given.
        RunFailedError: as `Cluster`.
    """
    if cluster is None:
        return Pool(jobs, device)
    if jobs:
        raise SettingError(
            f"`jobs` must be left out beside `cluster`, whose workers all work, got {jobs}."
        )
    return Cluster(cluster, device)


@dataclass(frozen=True)
class _Item:
    """An item of a call, and how many workers died of it."""

    number: int
    value: Any
    deaths: int = 0

    def after_death(self) -> "_Item":
        """The same after one more.

        Raises:
            RunFailedError: that was one too many.
        """
        if self.deaths + 1 == MOST_DEATHS:
            raise RunFailedError(
                f"{MOST_DEATHS} workers of the cluster died or were ended while they were at the "
                "same work, most likely for lack of memory or time; what was computed is kept: "
                "resume with workers that have more."
            )
        return replace(self, deaths=self.deaths + 1)


@dataclass(frozen=True)
class _Handed:
    """An item that a worker has."""

    item: _Item
    worker: str
    future: "Future"


class Cluster(Pool):
    """The workers of a Dask scheduler, one item at a time each, whatever their threads.

    The client hands every worker its next item when it has returned the last one, so that workers
    of any speed end together and those that join late get work at once. What a worker that died was
    at is handed to another one. Dask itself moves no item, or it might move one to a worker that
    does not fit. Large arrays travel once and are then passed on between workers; they are tasks of
    Dask themselves, so that they outlive the workers that hold them. Within a call they must not
    change.

    Relative paths mean the same on a worker as here, if it has this process's current folder.

    Attributes:
        bytes_sent: Of all items so far, without arrays that travel once.

    Args:
        scheduler: `tcp://host:port`, `tls://host:port` with Dask's own configuration, or the file
            of `dask scheduler --scheduler-file`.
        device: `cpu`; `cuda` for workers with a GPU only; `auto` for GPUs if every worker that is
            there has one, else `cpu`. Workers of one host share its GPUs out.

    Raises:
        SettingError: Dask is missing, no scheduler answers at the address, another device, or all
            workers have another taskdisc, Python, torch or numpy, or no GPU where one is wanted.
        RunFailedError: the scheduler was lost again.
    """

    def __init__(self, scheduler: str, device: str = "auto") -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise SettingError(
                f"`device` must be auto, cpu or cuda beside `cluster`, got {device!r}; each worker "
                "takes a GPU of its own."
            )
        self.bytes_sent = 0
        self._scheduler = Scheduler(scheduler)
        self._workers = Workers(self._scheduler, device)
        self._arrays = Arrays(self._scheduler)
        self.on_cpu = self._workers.on_cpu
        self.devices = ["cpu"] if self.on_cpu else ["cuda"]
        self.jobs, self.local_jobs = len(self._workers.fit), 0

    @property
    def bytes_shared(self) -> int:
        """Of arrays that travelled once, as sent to the scheduler."""
        return self._arrays.bytes_sent

    def map(
        self, work: Callable[[T, str], R], items: Iterable[T], *, ordered: bool = True
    ) -> Iterator[R]:
        """As of `Pool`; where it is left early, what is not done is cancelled on the cluster.

        Raises:
            RunFailedError: the scheduler was lost, or several workers died of one item.
        """
        return in_order(self._results(work, items), ordered)

    def _results(self, work: Callable[[T, str], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """Number and result of every item, as they come."""
        fresh = (_Item(number, value) for number, value in enumerate(items))
        again: deque[_Item] = deque()
        running: dict[str, _Handed] = {}
        ended: SimpleQueue[Future] = SimpleQueue()
        done: _Handed | None = None
        more = True
        self._arrays.start_call()
        try:
            while more or again or running or done:
                if self._look():
                    again.extend(self._taken_back(running))
                for worker in self._free(running):
                    item = again.popleft() if again else next(fresh, None)
                    if item is None:
                        more = False
                        break
                    future = self._submit((work, item.value), worker)
                    running[future.key] = _Handed(item, worker, future)
                    future.add_done_callback(ended.put)
                # After its worker has got the next item, for it may take its time.
                if done is not None:
                    found, result = self._fetched(done)
                    if found:
                        yield done.item.number, result
                    else:
                        again.append(done.item.after_death())
                done = running.pop(_next_key(ended), None) if more or again or running else None
        finally:
            self._scheduler.cancel([handed.future for handed in running.values()])

    def _look(self) -> bool:
        looked = self._workers.look()
        self.jobs = len(self._workers.fit)
        return looked

    def _free(self, running: dict[str, _Handed]) -> list[str]:
        taken = self._workers.paused | {handed.worker for handed in running.values()}
        return [worker for worker in self._workers.fit if worker not in taken]

    def _taken_back(self, running: dict[str, _Handed]) -> Iterator[_Item]:
        """The items of workers that have gone, or that were paused before they began."""
        for key, handed in list(running.items()):
            gone = handed.worker not in self._workers.fit
            if gone or self._workers.holds_back(handed.worker, handed.future):
                del running[key]
                self._scheduler.cancel([handed.future])
                yield handed.item.after_death() if gone else handed.item

    def _submit(self, call: Any, worker: str) -> "Future":
        content, arrays = packed(call)
        self.bytes_sent += len(content)
        futures = self._arrays.futures(arrays)
        with self._scheduler.reached() as client:
            return client.submit(
                on_worker.do,
                content,
                self._workers.fit[worker].device,
                os.getcwd(),
                *futures,
                key=f"taskdisc-{uuid.uuid4().hex}",
                workers=[worker],
                pure=False,
            )

    def _fetched(self, done: _Handed) -> tuple[bool, Any]:
        """Whether the worker still has the result, and the result; an error of the work is raised.

        Raises:
            RunFailedError: the scheduler was lost.
        """
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        future = done.future
        if future.status == "error":
            with self._scheduler.reached():
                error, trace = future.exception(), future.traceback()
            # The worker was told to end, or Dask itself counts its deaths.
            if isinstance(error, on_worker.Cancelled | KilledWorker):
                return False, None
            raise error.with_traceback(trace)
        while True:
            with self._scheduler.reached():
                try:
                    return True, future.result(timeout=FETCH_S)
                except TimeoutError:
                    pass
                except CancelledError as error:
                    raise ConnectionError from error
            self._look()
            if done.worker not in self._workers.fit:
                self._scheduler.cancel([future])
                return False, None


def _next_key(ended: "SimpleQueue[Future]") -> str:
    """The key of the next future that ends; empty if none does for a while."""
    try:
        key: str = ended.get(timeout=LOOK_S / 2).key
    except Empty:
        return ""
    return key
