"""Archives and arrays that somebody else may have made, checked before they take any memory."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

MOST_UNPACKED = 1 << 28
"""Bytes to which any archive may unpack, however small it is."""

MOST_RATIO = 100
"""How many times its own size a larger one may unpack to; deflate gets to 1,032 on zeros."""

_KINDS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}

_MOST_HEADER = 1000
"""Characters that say the shape and kind of an array; numpy writes 128, and evaluates them."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def check_archive(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse a .zip that is a bomb, or that says two things of one name.

    What a member says of its size need not be true: `read_member` reads no more than that.

    Raises:
        ValueError: a name stands twice, a member is packed in a way of which the size cannot be
            bounded, or all of them unpack to more than `MOST_UNPACKED` bytes and `MOST_RATIO`
            times the archive.
    """
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it holds {twice[:80]!r} twice")
    for member in members:
        if member.compress_type not in _KINDS:
            raise ValueError(
                f"{member.filename[:80]!r} is packed otherwise than stored or deflated"
            )
    total, most = sum(m.file_size for m in members), bomb_size(path.stat().st_size)
    if total > most:
        raise ValueError(f"it unpacks to {total:,} bytes, and may to {most:,}")


def bomb_size(n_bytes: int) -> int:
    """Bytes that a file of `n_bytes` may at most unpack to."""
    return max(MOST_UNPACKED, MOST_RATIO * n_bytes)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The content of a member, and never more bytes than it says.

    `ZipFile.read` unpacks all there is before it looks at what the member says.
    """
    with archive.open(member) as file:
        return file.read(member.file_size)


def read_arrays_of(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, by name; none is unpickled.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none, a bomb, damaged, or holds anything but plain arrays; its text says
            which.
    """
    with path.open("rb") as file, _plainly(), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        check_archive(path, members)
        found = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise ValueError(f"{name[:80]!r} is no array")
            with archive.open(member) as content:
                _check_header(content, member.file_size)
            with archive.open(member) as content:
                found[name] = np.lib.format.read_array(content, allow_pickle=False)
        return found


def names_of_arrays(path: Path) -> list[str]:
    """The names of the arrays in an .npz, without reading any.

    Raises:
        As `read_arrays_of`.
    """
    with path.open("rb") as file, _plainly(), zipfile.ZipFile(file) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def map_array(path: Path) -> np.ndarray:
    """The array of an .npy, mapped rather than read; objects cannot be.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none, or says that it holds more than there is.
    """
    with path.open("rb") as file, _plainly():
        _check_header(file, path.stat().st_size)
        return np.lib.format.open_memmap(path, mode="r")


def _check_header(file: IO[bytes], n_bytes: int) -> None:
    """Refuse an array that says it is larger than its file, or is of no plain kind."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its arrays are of version {version[0]}, which only records need")
    shape, _, kind = _HEADERS[version](file, max_header_size=_MOST_HEADER)
    left = n_bytes - file.tell()
    if kind.hasobject:
        raise ValueError("it holds objects, which only a pickle could hold")
    if not kind.itemsize or kind.fields or kind.subdtype:
        raise ValueError(f"its array is of {str(kind)[:40]}, not of numbers or text")
    # Of an array of nothing a side can be any number, which a loop over it would feel.
    if any(side < 0 for side in shape) or max(shape, default=0) > max(left, 1_000_000):
        raise ValueError(f"its array says that its shape is {_shown(shape)}")
    if math.prod(shape) * kind.itemsize > left:
        raise ValueError(
            f"its array of {_shown(shape)} {kind} is more than the {left:,} bytes there"
        )


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(f'{side:.3g}' if side > 1e12 else str(side) for side in shape[:6])}]"


class _plainly:
    """Within it, whatever a damaged file makes of its reader is a ValueError of one line."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, OSError | MemoryError):
            raise ValueError(one_line(error)) from error


def one_line(error: Exception) -> str:
    """The first line of what an error says, or its kind, to stand within a sentence."""
    words = [*str(error).splitlines(), type(error).__name__][0].rstrip(".")
    return words if len(words) <= 200 else f"{words[:199]}…"
