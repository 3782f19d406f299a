"""Work on many machines: a pool whose workers are those of a Dask scheduler."""

import atexit
import ctypes
import hashlib
import io
import logging
import os
import pickle
import platform
import re
import socket
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from taskdisc.archives import one_line
from taskdisc.errors import RunFailedError, SettingError, TaskdiscError
from taskdisc.pool import Pool, devices_of, one_thread

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

CONNECT_S = 5
"""Seconds in which a scheduler must answer."""

LOOK_S = 1.0
"""Seconds between two looks at which workers there are."""

FETCH_S = 5
"""Seconds to wait for a result before it is asked whether the worker that has it is still there."""

MOST_DEATHS = 4
"""Workers that may die of an item before it is given up."""

LARGE = 50_000
"""Bytes from which an array is sent to a worker once, not with every item."""


def pool_for(jobs: int = 0, device: str = "auto", cluster: str | None = None) -> Pool:
    """The workers of this machine, or with an address those of a Dask scheduler.

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
                f"{MOST_DEATHS} workers of the cluster died of the same work, most likely for lack "
                "of memory; what was computed is kept: resume with workers that have more."
            )
        return replace(self, deaths=self.deaths + 1)


class Cluster(Pool):
    """The workers of a Dask scheduler, one item at a time each, whatever their threads.

    The client hands every worker its next item when it has returned the last one, so that workers
    of any speed end together and those that join late get work at once. What a worker that died was
    at is handed to another one. Dask itself moves no item, or it might move one to a worker that
    does not fit. Arrays of `LARGE` bytes or more travel once and are then passed on between
    workers; they are tasks of Dask themselves, so that they outlive the workers that hold them.

    Relative paths mean the same on a worker as here, if it has this process's current folder.

    Attributes:
        jobs: Workers that there were at the last look.
        bytes_sent: Of all items so far, without arrays that travel once.
        bytes_shared: Of arrays that travelled once, as sent to the scheduler.

    Args:
        address: `tcp://host:port`, or `tls://host:port` with Dask's own configuration.
        device: `cpu`; `cuda` for workers with a GPU only; `auto` for GPUs if every worker that is
            there has one, else `cpu`. Workers of one host share its GPUs out.

    Raises:
        SettingError: Dask is missing, no scheduler answers at the address, another device, or all
            workers have another taskdisc, Python, torch or numpy, or no GPU where one is wanted.
        RunFailedError: the scheduler was lost again.
    """

    def __init__(self, address: str, device: str = "auto") -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise SettingError(
                f"`device` must be auto, cpu or cuda beside `cluster`, got {device!r}; each worker "
                "takes a GPU of its own."
            )
        self.jobs, self.local_jobs = 0, 0
        self.bytes_sent, self.bytes_shared = 0, 0
        self._address = address
        self._client = _connected(address)
        self._workers: dict[str, str] = {}  # address -> device, of those that are fit
        self._unfit: dict[str, str] = {}  # address -> why
        self._per_host: dict[str, int] = {}
        self._looked = 0.0
        self._arrays: dict[int, tuple[np.ndarray, Future]] = {}
        self.on_cpu = self._decide(device)
        self.devices = ["cpu"] if self.on_cpu else ["cuda"]
        self._look()
        if not self._workers:
            raise SettingError(
                f"`cluster` must have a worker that fits, got '{address}': "
                f"{next(iter(self._unfit.values()))}."
            )

    def map(
        self, work: Callable[[T, str], R], items: Iterable[T], *, ordered: bool = True
    ) -> Iterator[R]:
        """As of `Pool`; where it is left early, what is not done is cancelled on the cluster.

        Raises:
            RunFailedError: the scheduler was lost, or several workers died of one item.
        """
        waiting = enumerate(items)
        again: deque[_Item] = deque()
        running: dict[str, tuple[Future, _Item, str]] = {}
        ended: SimpleQueue[Future] = SimpleQueue()
        results: dict[int, R] = {}
        due, more = 0, True
        # Kept for one more call, for the next batch is mostly of the same images.
        earlier, self._arrays = self._arrays, {}

        def take_back() -> None:
            for key, (future, item, worker) in list(running.items()):
                if worker not in self._workers:
                    del running[key]
                    self._cancel([future])
                    again.append(item.after_death())

        def hand_out() -> bool:
            busy = {worker for _, _, worker in running.values()}
            for worker in self._workers:
                if worker in busy:
                    continue
                if again:
                    item = again.popleft()
                else:
                    number, value = next(waiting, (-1, None))
                    if number < 0:
                        return False
                    item = _Item(number, value)
                future = self._submit((work, item.value), worker, earlier)
                running[future.key] = (future, item, worker)
                future.add_done_callback(ended.put)
            return True

        try:
            while more or again or running:
                future = _next_of(ended) if running or not self._workers else None
                self._look()
                entry = None if future is None else running.pop(future.key, None)
                take_back()
                if more or again:
                    more = hand_out()  # before the result is fetched, which takes its time
                if entry is None:
                    continue
                future, item, worker = entry
                found, result = self._result(future, worker)
                if not found:
                    again.append(item.after_death())
                    continue
                results[item.number] = result
                if not ordered:
                    yield results.pop(item.number)
                while due in results:
                    yield results.pop(due)
                    due += 1
        finally:
            self._cancel([future for future, _, _ in running.values()])

    def _submit(self, call: Any, worker: str, earlier: dict[int, Any]) -> "Future":
        packed, arrays = _packed(call)
        self.bytes_sent += len(packed)
        for array in arrays:
            name = id(array)
            if name not in self._arrays:
                self._arrays[name] = earlier.get(name) or (array, self._share(array, earlier))
        try:
            return self._client.submit(
                _on_worker,
                packed,
                self._workers[worker],
                os.getcwd(),
                *[self._arrays[id(array)][1] for array in arrays],
                key=f"taskdisc-{uuid.uuid4().hex}",
                workers=[worker],
                pure=False,
            )
        except (OSError, RuntimeError) as error:
            raise self._lost() from error

    def _share(self, array: np.ndarray, earlier: dict[int, Any]) -> "Future":
        """An array on the cluster, by its content.

        A task rather than scattered data, which would be lost with the last worker that holds it;
        of a function that workers know that have no taskdisc, for any may be chosen.
        """
        import dask

        array = np.ascontiguousarray(array)
        digest = hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
        name = f"taskdisc-array-{digest.hexdigest()}"
        for _, future in (*earlier.values(), *self._arrays.values()):
            if future.key == name:
                return future
        self.bytes_shared += array.nbytes
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            return self._client.submit(copy, array, key=name)

    def _result(self, future: "Future", worker: str) -> tuple[bool, Any]:
        """Whether the worker still has the result, and the result."""
        from concurrent.futures import CancelledError

        if future.status == "error":
            raise future.exception()
        while True:
            try:
                return True, future.result(timeout=FETCH_S)
            except TimeoutError:
                self._look()
                if worker not in self._workers:
                    self._cancel([future])
                    return False, None
            except (CancelledError, OSError) as error:
                raise self._lost() from error

    def _cancel(self, futures: list["Future"]) -> None:
        if futures and self._client.status == "running":
            self._client.cancel(futures)

    def _lost(self) -> RunFailedError:
        return RunFailedError(
            f"the scheduler at {self._address} was lost; what was computed is kept: start it and "
            "its workers again, and resume."
        )

    def _look(self) -> None:
        """See which workers there are, at most once in `LOOK_S`, and look at each new one once."""
        if self._client.status != "running":
            raise self._lost()
        if time.monotonic() < self._looked + LOOK_S:
            return
        threads = self._threads()
        for address, facts in self._new(threads).items():
            why = self._why_unfit(facts)
            if why:
                self._unfit[address] = why
                if self._looked:  # at first, of many workers that are alike one is enough
                    _say(f"the worker {address} is left out: {why}")
                continue
            if threads[address] > 1:
                _say(
                    f"the worker {address} has {threads[address]} threads and gets one item at a "
                    "time; start one worker per core, with one thread each"
                )
            number = self._per_host.get(facts["host"], 0)
            self._per_host[facts["host"]] = number + 1
            self._workers[address] = "cpu" if self.on_cpu else f"cuda:{number % facts['gpus']}"
        if not self._looked and self._workers and self._unfit:
            address, why = next(iter(self._unfit.items()))
            _say(f"workers that are left out: {len(self._unfit)}, such as {address}: {why}")
        if self.jobs and not self._workers:
            _say(f"the cluster at {self._address} has no worker any more; waiting for one")
        self.jobs = len(self._workers)
        self._looked = time.monotonic()

    def _threads(self) -> dict[str, int]:
        """The threads of each worker by its address; those that are gone are forgotten."""
        try:
            threads: dict[str, int] = self._client.nthreads()
        except (OSError, RuntimeError) as error:
            raise self._lost() from error
        for known in (self._workers, self._unfit):
            for address in set(known) - set(threads):
                del known[address]
        return threads

    def _new(self, threads: dict[str, int]) -> dict[str, Any]:
        """What those workers say of themselves that were not looked at yet; an exception or so."""
        new = [a for a in threads if a not in self._workers and a not in self._unfit]
        if not new:
            return {}
        try:
            return dict(self._client.run(_facts, workers=new, on_error="return"))
        except (OSError, RuntimeError) as error:
            raise self._lost() from error

    def _decide(self, device: str) -> bool:
        """Whether the work is done on CPUs, by what the workers have that are there by now."""
        threads = self._threads()
        if not threads:
            _say(f"the cluster at {self._address} has no worker yet; waiting for one")
        while not threads:
            time.sleep(LOOK_S / 2)
            if self._client.status != "running":
                raise self._lost()
            threads = self._threads()
        if device != "auto":
            return device == "cpu"
        found = [facts for facts in self._new(threads).values() if isinstance(facts, dict)]
        n_gpus = sum(facts["gpus"] > 0 for facts in found)
        if 0 < n_gpus < len(found):
            _say(
                f"{n_gpus} of {len(found)} workers have a GPU, so all work is done on CPUs, that "
                "it be rounded alike; --device cuda is for those with a GPU alone"
            )
        return n_gpus < max(len(found), 1)

    def _why_unfit(self, facts: Any) -> str:
        """Why a worker must not be given work; empty if it may."""
        if isinstance(facts, ModuleNotFoundError):
            return f"it lacks a package ({facts}); start it from the same environment"
        if not isinstance(facts, dict):
            return f"it does not answer as it should ({type(facts).__name__}: {facts})"
        for name, ours in _environment().items():
            theirs = facts["environment"].get(name)
            if theirs != ours:
                return (
                    f"it has {name} {theirs} and this process has {ours}; start it from the same "
                    "environment"
                )
        if not self.on_cpu and not facts["gpus"]:
            return "it has no GPU, and the work is for GPUs"
        return ""


_clients: dict[str, "Client"] = {}


def _connected(address: str) -> "Client":
    """The one connection of this process to a scheduler, until the process ends."""
    if not re.fullmatch(r"(tcp|tls)://\S+:[0-9]+", address):
        raise SettingError(
            "`cluster` must be the address of a Dask scheduler, tcp://host:port or "
            f"tls://host:port, got {address!r}."
        )
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise SettingError(
            "`cluster` must be left out without Dask, which is not installed here; get it by: "
            "pip install 'taskdisc[dask]'."
        ) from error
    if address in _clients and _clients[address].status == "running":
        return _clients[address]
    # What goes wrong is said by our errors; Dask would log it several times beside them.
    for name in ("distributed", "distributed.client", "distributed.gc"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_S}s"})
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False, name="taskdisc")
    # A file of a TLS configuration may be missing or damaged, and another service may answer.
    except Exception as error:
        raise SettingError(
            f"`cluster` must be the address of a Dask scheduler that runs, got {address!r}, where "
            f"none answers ({one_line(error)}); start one with: dask scheduler."
        ) from error
    _clients[address] = client
    atexit.register(client.close, timeout=3)
    return client


def _next_of(ended: "SimpleQueue[Future]") -> "Future | None":
    try:
        return ended.get(timeout=LOOK_S / 2)
    except Empty:
        return None


def _packed(value: Any) -> tuple[bytes, list[np.ndarray]]:
    """A pickle of anything, and the large arrays that it leaves out, in the order of their ids."""
    # As joblib does it, so that functions of a user's script and notebook work.
    import cloudpickle

    arrays: dict[int, tuple[int, np.ndarray]] = {}

    class Packer(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        def persistent_id(self, part: Any) -> int | None:
            if not isinstance(part, np.ndarray) or part.nbytes < LARGE or part.dtype.hasobject:
                return None
            return arrays.setdefault(id(part), (len(arrays), part))[0]

    packed = io.BytesIO()
    Packer(packed).dump(value)
    return packed.getvalue(), [array for _, array in arrays.values()]


def _unpacked(packed: bytes, arrays: tuple[np.ndarray, ...]) -> Any:
    class Unpacker(pickle.Unpickler):
        def persistent_load(self, name: int) -> np.ndarray:
            return arrays[name]

    return Unpacker(io.BytesIO(packed)).load()


def _say(text: str) -> None:
    print(f"taskdisc: {text}.", file=sys.stderr, flush=True)


# --- on a worker -----------------------------------------------------------------------------

_one_at_a_time = threading.Lock()
"""Seeds and numbers of threads are a process's own, so that it does one piece of work at a time."""


class _Cancelled(Exception):
    """Nobody waits any more for what a worker is at."""


def _on_worker(packed: bytes, device: str, folder: str, *arrays: np.ndarray) -> Any:
    here = chdir(folder) if os.path.isdir(folder) else nullcontext()
    with _one_at_a_time, _until_cancelled(), here, one_thread():
        work, item = _unpacked(packed, arrays)
        return work(item, device)


@contextmanager
def _until_cancelled() -> Iterator[None]:
    """Within it, `_Cancelled` is raised soon after the client or the scheduler has gone.

    Dask cannot stop what a thread does. A training that nobody waits for would go on for hours, and
    write to the folder in which the resumed run trains again.
    """
    from distributed import Status, get_worker

    worker, thread = get_worker(), threading.get_ident()
    key = worker.get_current_task()
    over, guard = threading.Event(), threading.Lock()

    def watch() -> None:
        while not over.wait(LOOK_S):
            task = worker.state.tasks.get(key)
            works = worker.status in (Status.running, Status.paused)
            if works and task is not None and task.state != "cancelled":
                continue
            with guard:
                if not over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread), ctypes.py_object(_Cancelled)
                    )

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        with guard:
            over.set()


def _facts() -> dict[str, Any]:
    """What a client must know of a worker."""
    try:
        n_gpus = len([device for device in devices_of("auto") if device != "cpu"])
    except TaskdiscError:
        n_gpus = 0
    return {"environment": _environment(), "host": socket.gethostname(), "gpus": n_gpus}


@cache
def _environment() -> dict[str, str]:
    """What decides results and must be the same everywhere, down to taskdisc's own sources."""
    from taskdisc.taskness.compiled import library

    folder = Path(__file__).parent
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
