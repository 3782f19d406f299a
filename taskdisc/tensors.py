"""Files of PyTorch that somebody else may have made: tensors and plain values, or a ValueError."""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

from taskdisc.archives import check_archive, one_line, read_member
from taskdisc.nesting import check_nested, entries

_PLAIN = {("collections", "OrderedDict"): OrderedDict, ("torch", "Size"): tuple}
_REBUILDS = {"_rebuild_tensor", "_rebuild_tensor_v2"}
_MOST_PARTS = 1_000_000
_OLD_HEAD = 3
"""Pickles before that of the content in a file of an old PyTorch: magic, version, machine."""


def load_tensors(path: Path, mapped: bool = False) -> Any:
    """What `torch.save` wrote, on the CPU; nothing that the file holds is called.

    PyTorch's own `weights_only` lets a file ask for any amount of memory. Hence the pickle is first
    read with stand-ins for tensors, which know how large they say they are.

    Args:
        path: The file.
        mapped: Whether tensors are mapped rather than read; the file must be of a newer PyTorch.

    Raises:
        OSError: the file cannot be read.
        ValueError: anything else is in it than tensors of numbers and plain values, or it is a
            bomb, or damaged.
    """
    import torch

    try:
        _check(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a file of another kind can raise anything here
        raise ValueError(one_line(error)) from error


class _Short:
    """A file of which no more is ever asked for than it has: room for that is made beforehand."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most
        self.readline = file.readline

    def read(self, n: int) -> bytes:
        return self._file.read(min(n, self._most))


class _Storage(NamedTuple):
    """Stands for the memory of tensors."""

    n_elements: int


class _Kind(NamedTuple):
    """Stands for a kind of storage, which only `torch` itself may call."""

    name: str


# The one in Python: that in C makes room for any place in its memo that the file names.
class _StandIns(pickle._Unpickler):
    """Reads a pickle of tensors without them, and refuses all that is called but their rebuilding.

    Args:
        file: The pickle.
        most: Bytes that all its tensors can have: those of the file.
    """

    # Room for a bytearray is made before anything is read; no tensor has one.
    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, file: IO[bytes], most: int) -> None:
        super().__init__(_Short(file, most), encoding="utf-8")
        self._most = most

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in _REBUILDS:
            return _rebuilt
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _parameter
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if module == "torch" and (name.endswith("Storage") or name.islower()):
            return _Kind(name)  # a storage or a dtype
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return _Kind(name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}"[:100])

    def persistent_load(self, pid: Any) -> _Storage:
        what, kind, _, _, n_elements = pid[:5]
        if what != "storage" or not isinstance(kind, _Kind) or not isinstance(n_elements, int):
            raise pickle.UnpicklingError("it refers to what is no tensor")
        if not 0 <= n_elements <= self._most:
            raise pickle.UnpicklingError(f"a tensor of {n_elements:,} numbers is not in it")
        return _Storage(n_elements)


def _rebuilt(storage: _Storage, offset: int, size: Any, stride: Any, *more: Any) -> None:
    size, stride = [int(n) for n in size], [int(n) for n in stride]
    # A tensor may say that one number is a million times a million.
    if min([offset, *size, *stride]) < 0 or math.prod(size) > storage.n_elements:
        raise pickle.UnpicklingError(f"a tensor of {size[:6]} is not in it")


def _parameter(*values: Any) -> None:
    """A parameter is its tensor here."""


def _check(path: Path) -> None:
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            for number in range(_OLD_HEAD + 1):
                value = _StandIns(file, n_bytes).load()
                if not number and value != 0x1950A86A20F9469CFC6C:
                    raise ValueError("it is no file of PyTorch")
            check_nested(value, entries, _MOST_PARTS)
            _StandIns(file, n_bytes).load()  # names of what follows
            return
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            check_archive(path, members)
            pickles = [m for m in members if m.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError("it is no file of PyTorch")
            content = read_member(archive, pickles[0])
            most = max(n_bytes, sum(member.file_size for member in members))
            check_nested(_StandIns(io.BytesIO(content), most).load(), entries, _MOST_PARTS)
