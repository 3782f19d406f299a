"""Spread independent work over cores or GPUs, with results in order and the same for any number."""

import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from taskdisc.errors import RunFailedError, SettingError

T = TypeVar("T")
R = TypeVar("R")


class Pool:
    """Workers of one thread each; `jobs=1` works in this process.

    Attributes:
        jobs: Number of workers. No result depends on it.
        local_jobs: How many of them share the memory of this machine.
        devices: What they work on.
        on_cpu: Whether that is a CPU, which decides how much is trained at once.

    Args:
        jobs: Number of workers; 0 stands for one per core, or one per GPU.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` (all GPUs) or `cuda:<index>`.

    Raises:
        SettingError: an unknown device, a GPU where there is none, or fewer than 0 jobs.
    """

    def __init__(self, jobs: int = 0, device: str = "auto") -> None:
        if jobs < 0:
            raise SettingError(f"`jobs` must be 0 (one per core) or more, got {jobs}.")
        self.devices = devices_of(device)
        self.on_cpu = self.devices == ["cpu"]
        self.jobs = jobs or (_cores() if self.on_cpu else len(self.devices))
        self.local_jobs = self.jobs
        self._lost_workers = False

    def map(
        self, work: Callable[[T, str], R], items: Iterable[T], *, ordered: bool = True
    ) -> Iterator[R]:
        """`work(item, device)` for every item as results come in, in the order of the items or not.

        What a dying worker loses is worked on again by half as many workers, so that each has more
        memory, and the pool stays at that number; at last by one worker.

        Raises:
            RunFailedError: a worker died (out of memory, or killed) that was alone.
        """
        numbered = enumerate(items)
        if self.jobs == 1 and not self._lost_workers:
            for number, item in numbered:
                with one_thread():
                    result = work(item, self._device(number))
                yield result
            return
        yield from in_order(self._from_workers(work, numbered), ordered)

    def _from_workers(
        self, work: Callable[[T, str], R], numbered: Iterator[tuple[int, T]]
    ) -> Iterator[tuple[int, R]]:
        """Number and result of every item, as they come."""
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        without_result: dict[int, T] = {}

        def given() -> Iterator[tuple[int, T]]:
            yield from list(without_result.items())
            for number, item in numbered:
                without_result[number] = item
                yield number, item

        while True:
            try:
                for number, result in self._sitting(work, given()):
                    del without_result[number]
                    yield number, result
                return
            except TerminatedWorkerError as error:
                if _stopped_by:
                    raise KeyboardInterrupt from error
                if self.jobs == 1:
                    raise RunFailedError(
                        "a worker process died though it worked alone, most likely for lack of "
                        "memory; what was computed is kept: free some memory, then resume with "
                        "`jobs` = 1, which needs no worker."
                    ) from error
                self.jobs //= 2
                self._lost_workers = True
                print(
                    "taskdisc: a worker process died, most likely for lack of memory; what it "
                    f"lost is worked on again, by {self.jobs} at a time.",
                    file=sys.stderr,
                    flush=True,
                )

    def _sitting(
        self, work: Callable[[T, str], R], numbered: Iterator[tuple[int, T]]
    ) -> Iterator[tuple[int, R]]:
        """The same until a worker dies."""
        from joblib import Parallel, delayed

        # Stopping early on purpose is no reason for joblib's warning about cancelled tasks.
        warnings.filterwarnings("ignore", "[0-9]+ tasks (which were still|have been successfully)")
        # Of one worker joblib would make this process, which is the one that must not die: of two,
        # given one item at a time, one works.
        at_once = "2*n_jobs" if self.jobs > 1 else 1
        parallel = Parallel(
            max(self.jobs, 2),
            backend="loky",
            return_as="generator_unordered",
            pre_dispatch=at_once,
            batch_size="auto" if self.jobs > 1 else 1,
        )
        yield from parallel(
            delayed(_in_worker)(work, number, item, self._device(number))
            for number, item in numbered
        )

    def _device(self, number: int) -> str:
        return self.devices[number % len(self.devices)]


def in_order(results: Iterator[tuple[int, R]], ordered: bool = True) -> Iterator[R]:
    """Results by the numbers of their items, from 0, or as they come."""
    ready: dict[int, R] = {}
    n_handed = 0
    for number, result in results:
        if not ordered:
            yield result
            continue
        ready[number] = result
        while n_handed in ready:
            yield ready.pop(n_handed)
            n_handed += 1


_STOPPING = (signal.SIGINT, signal.SIGTERM)

_stopped_by: list[int] = []
"""The signals that are stopping this process, in order."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM are a KeyboardInterrupt even if they kill a starting worker.

    Batch systems send SIGTERM some time before they kill, some of them more than once, so that only
    the first of them counts.
    """

    def stop(number: int, frame: object) -> None:
        if number == signal.SIGTERM and number in _stopped_by:
            return
        _stopped_by.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stopped_by.clear()


def stopped_status() -> int:
    """The exit status after a signal, within `interruptible`: 130 of Ctrl-C, 143 of SIGTERM."""
    return 128 + (_stopped_by[0] if _stopped_by else signal.SIGINT)


def _in_worker(work: Callable[[Any, str], R], number: int, item: Any, device: str) -> tuple[int, R]:
    _settle_in(os.getppid())
    with one_thread():
        return number, work(item, device)


@cache
def _settle_in(parent: int) -> None:
    """Once per worker process: leave decisions to the parent, and do not outlive it."""
    # Ctrl-C reaches every process of the terminal, and SIGTERM may reach every one of a batch job;
    # the parent alone decides what they mean.
    if threading.current_thread() is threading.main_thread():
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)

    # loky replaces a worker that has grown by 300 MB, taking that for a leak. Here it is images,
    # which the next worker would read again, after seconds of imports.
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = float("inf")

    def watch() -> None:
        # A parent that is killed cannot stop its workers, and each holds the memory of torch.
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and numpy: sums then have one order, whatever the machine."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def devices_of(device: str) -> list[str]:
    """The devices of this machine that a setting stands for, at least one.

    Raises:
        SettingError: it is none of them, or not available here.
    """
    import torch

    kind, _, index = device.partition(":")
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", device):
        raise SettingError(
            f"`device` must be one of auto, cpu, cuda, cuda:<index>, got {device!r}."
        )
    n_gpus = torch.cuda.device_count()
    if kind == "cpu" or (kind == "auto" and n_gpus == 0):
        return ["cpu"]
    if n_gpus == 0:
        raise SettingError(
            f"`device` must be available here, got {device!r} and PyTorch sees no GPU; "
            "use --device cpu."
        )
    if index and int(index) >= n_gpus:
        raise SettingError(
            f"`device` must be one of the {n_gpus} GPUs that PyTorch sees, got {device!r}."
        )
    return [device] if index else [f"cuda:{i}" for i in range(n_gpus)]


def _cores() -> int:
    from joblib import cpu_count

    # The cores that this process may use, which containers and schedulers limit.
    return int(cpu_count())
