"""Spread independent work over cores or GPUs, with results in order and the same for any number."""

import os
import re
import signal
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

    Args:
        jobs: Number of workers; 0 stands for one per core, or one per GPU.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` (all GPUs) or `cuda:<index>`.

    Raises:
        SettingError: an unknown device, a GPU where there is none, or fewer than 0 jobs.
    """

    def __init__(self, jobs: int = 0, device: str = "auto") -> None:
        if jobs < 0:
            raise SettingError(f"`jobs` must be 0 (one per core) or more, got {jobs}.")
        self.devices = _devices(device)
        on_cpu = self.devices == ["cpu"]
        self.jobs = jobs or (_cores() if on_cpu else len(self.devices))

    def map(
        self, work: Callable[[T, str], R], items: Iterable[T], *, ordered: bool = True
    ) -> Iterator[R]:
        """`work(item, device)` for every item as results come in, in the order of the items or not.

        Raises:
            RunFailedError: a worker died (out of memory, or killed).
        """
        numbered = enumerate(items)
        if self.jobs == 1:
            for number, item in numbered:
                with _one_thread():
                    result = work(item, self._device(number))
                yield result
            return
        from joblib import Parallel, delayed
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        # Stopping early on purpose is no reason for joblib's warning about cancelled tasks.
        warnings.filterwarnings("ignore", "[0-9]+ tasks which were still being processed")
        order = "generator" if ordered else "generator_unordered"
        parallel = Parallel(self.jobs, backend="loky", return_as=order, pre_dispatch="2*n_jobs")
        calls = (delayed(_in_worker)(work, item, self._device(number)) for number, item in numbered)
        try:
            yield from parallel(calls)
        except TerminatedWorkerError as error:
            if _interrupted.is_set():
                raise KeyboardInterrupt from error
            raise RunFailedError(
                "a worker process died, most likely for lack of memory; what was computed is kept: "
                "resume with fewer `jobs`."
            ) from error

    def _device(self, number: int) -> str:
        return self.devices[number % len(self.devices)]


_interrupted = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, Ctrl-C is a KeyboardInterrupt even if it kills a worker that is only starting."""

    def interrupt(number: int, frame: object) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    _interrupted.clear()
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_worker(work: Callable[[Any, str], R], item: Any, device: str) -> R:
    _settle_in(os.getppid())
    with _one_thread():
        return work(item, device)


@cache
def _settle_in(parent: int) -> None:
    """Once per worker process: leave decisions to the parent, and do not outlive it."""
    # Ctrl-C reaches every process of the terminal; the parent alone decides what it means.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        # A parent that is killed cannot stop its workers, and each holds the memory of torch.
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _one_thread() -> Iterator[None]:
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


def _devices(device: str) -> list[str]:
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
