"""What runs on a worker of a cluster: one piece of work at a time, while somebody waits for it."""

import ctypes
import hashlib
import os
import platform
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, nullcontext
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import taskdisc
from taskdisc.cluster.packing import unpacked
from taskdisc.pool import devices_of, one_thread

LOOK_S = 1.0
"""Seconds between two looks at whether somebody still waits for the work."""

_one_at_a_time = threading.Lock()
"""Seeds and numbers of threads are a process's own, so that it does one piece of work at a time."""


class Cancelled(BaseException):
    """Nobody waits any more for what a worker is at; no error that work might deal with."""


def do(packed: bytes, device: str, folder: str, *arrays: np.ndarray) -> Any:
    """The result of `work(item, device)`, in the client's current folder if it is there.

    Args:
        packed: `(work, item)`, see `packing.packed`.
        device: For the work.
        folder: The client's current folder.
        *arrays: Those that were left out of the pickle.
    """
    here = chdir(folder) if os.path.isdir(folder) else nullcontext()
    with _one_at_a_time, stopped_when(_nobody_waits()), here, one_thread():
        work, item = unpacked(packed, arrays)
        return work(item, device)


def facts() -> dict[str, Any]:
    """What a client must know of a worker: `environment`, `host`, and names of its `gpus`."""
    n_gpus = sum(device != "cpu" for device in devices_of("auto"))
    # Workers may each see the GPUs of a host in another order, as those of dask-cuda do.
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpus = seen if len(seen) == n_gpus else [str(number) for number in range(n_gpus)]
    return {"environment": environment(), "host": socket.gethostname(), "gpus": gpus}


@cache
def environment() -> dict[str, str]:
    """What decides results and must be the same everywhere, down to taskdisc's own sources."""
    from taskdisc.taskness.compiled import library

    folder = Path(taskdisc.__file__).parent
    sources = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        sources.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return {
        "taskdisc": f"{version('taskdisc')} ({sources.hexdigest()[:8]})",
        "Python": ".".join(platform.python_version_tuple()[:2]),
        # Without what torch adds about CUDA: a client need not have any.
        **{name: version(name).partition("+")[0] for name in ("torch", "numpy")},
        "compiled convolutions": "no" if library() is None else "yes",
    }


@contextmanager
def stopped_when(true: Callable[[], bool], every: float = LOOK_S) -> Iterator[None]:
    """Within it, `Cancelled` is raised in this thread soon after something has become true.

    Dask cannot stop what a thread does. A training that nobody waits for would go on for hours, and
    write to the folder in which the resumed run trains again. Nothing is raised after it.
    """
    thread = threading.get_ident()
    ended, guard, over = threading.Event(), threading.Lock(), False

    def watch() -> None:
        while not ended.wait(every):
            with guard:
                if not over and true():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread), ctypes.py_object(Cancelled)
                    )

    try:
        threading.Thread(target=watch, daemon=True).start()
        yield
    finally:
        over = True  # an assignment, which nothing can interrupt
        try:
            with guard:
                pass
        except Cancelled:  # raised just before; from here on there is no other
            pass
        ended.set()


def _nobody_waits() -> Callable[[], bool]:
    """Whether client or scheduler have gone, for the task that this thread is at."""
    from distributed import Status, get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def gone() -> bool:
        works = worker.status in (Status.running, Status.paused, Status.closing_gracefully)
        task = worker.state.tasks.get(key)
        return not works or task is None or task.state == "cancelled"

    return gone
