"""Work as bytes, and its large arrays, which travel to a cluster once and not with every item."""

import hashlib
import io
import pickle
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.cluster.scheduler import Scheduler

if TYPE_CHECKING:
    from distributed import Future

LARGE = 50_000
"""Bytes from which an array is sent to a worker once, not with every item."""

KEPT = 1 << 28
"""Bytes of arrays that are kept on the cluster beside those of the last item."""


def packed(value: Any) -> tuple[bytes, list[np.ndarray]]:
    """A pickle of anything, and the large arrays that it leaves out, in the order of their ids."""
    # As joblib does it, so that functions of a user's script and notebook work.
    import cloudpickle

    arrays: dict[int, tuple[int, np.ndarray]] = {}

    class Packer(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        def persistent_id(self, part: Any) -> int | None:
            # No subclass, such as a masked array, which has more than its numbers.
            if type(part) not in (np.ndarray, np.memmap):
                return None
            if part.nbytes < LARGE or part.dtype.hasobject:
                return None
            return arrays.setdefault(id(part), (len(arrays), part))[0]

    file = io.BytesIO()
    Packer(file).dump(value)
    return file.getvalue(), [array for _, array in arrays.values()]


def unpacked(content: bytes, arrays: tuple[np.ndarray, ...]) -> Any:
    """The value, with its arrays."""

    class Unpacker(pickle.Unpickler):
        def persistent_load(self, number: int) -> np.ndarray:
            return arrays[number]

    return Unpacker(io.BytesIO(content)).load()


def content_name(array: np.ndarray) -> str:
    """The name of an array on the cluster: of equal ones that lie in memory alike, the same."""
    by_row = array.flags.c_contiguous
    about = f"{array.dtype} {array.shape} {'C' if by_row else 'F'} "
    digest = hashlib.sha256(about.encode())
    digest.update((array if by_row else array.T).reshape(-1).view(np.uint8).data)
    return f"taskdisc-array-{digest.hexdigest()}"


@dataclass(frozen=True)
class _Kept:
    array: np.ndarray  # held, so that its id stays its own
    name: str
    future: "Future"


class Arrays:
    """The large arrays on a cluster, each as long as items keep coming that have it.

    Attributes:
        bytes_sent: Of all arrays so far, as sent to the scheduler.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.bytes_sent = 0
        self._scheduler = scheduler
        self._call = 0
        self._kept: dict[tuple[int, int], _Kept] = {}  # by call and id, the last used last
        self._n_bytes = 0

    def start_call(self) -> None:
        """From here on arrays may have other numbers than before."""
        self._call += 1

    def futures(self, arrays: list[np.ndarray]) -> list["Future"]:
        """What stands for the arrays of an item; within a call they must not change."""
        keys = [(self._call, id(array)) for array in arrays]
        for key, array in zip(keys, arrays, strict=True):
            if key not in self._kept:
                self._n_bytes += array.nbytes
                self._kept[key] = self._sent(array)
            self._kept[key] = self._kept.pop(key)
        while self._n_bytes > KEPT and len(self._kept) > len(keys):
            self._n_bytes -= self._kept.pop(next(iter(self._kept))).array.nbytes
        return [self._kept[key].future for key in keys]

    def _sent(self, array: np.ndarray) -> _Kept:
        """An array on the cluster.

        A task rather than scattered data, which would be lost with the last worker that holds it;
        of a function that workers know that have no taskdisc, for any may be chosen.
        """
        import dask

        whole = array.flags.c_contiguous or array.flags.f_contiguous
        contiguous = array if whole else np.ascontiguousarray(array)
        name = content_name(contiguous)
        for kept in self._kept.values():
            if kept.name == name:
                return _Kept(array, name, kept.future)
        self.bytes_sent += array.nbytes
        with (
            dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}),
            self._scheduler.reached() as client,
        ):
            return _Kept(array, name, client.submit(copy, contiguous, key=name))
