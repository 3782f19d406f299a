"""Decoded images, kept as memory-mapped arrays so that a set is decoded once.

An entry is a folder ``<key>/images.npy``. It is built in a temporary folder beside it and renamed
into place, so readers never see half of one, and of two processes that build the same entry the
second finds it there and takes it. A cache that cannot be written only means decoding again.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from taskdisc.archives import map_array
from taskdisc.images.image_set import Images

_STALE_S = 24 * 3600


def cache_folder() -> Path:
    """Where decoded images live: ``$TASKDISC_CACHE`` or ``~/.cache/taskdisc/decoded``."""
    place = os.environ.get("TASKDISC_CACHE")
    return Path(place).expanduser() if place else Path.home() / ".cache" / "taskdisc" / "decoded"


def cached(
    folder: Path | None,
    key: str,
    shape: tuple[int, ...],
    batches: Callable[[], Iterable[Images]],
) -> Images:
    """The array of `shape` whose parts along the first axis `batches()` yields in order.

    Read-only and memory-mapped from the entry `key` of `folder`, which is built where it is
    missing, torn or of another shape; in memory where `folder` is None or cannot be written.
    """
    if folder is not None:
        entry = folder / key
        found = _opened(entry, shape)
        if found is None:
            # Only OSError: what is wrong with an image is an ImageSetError and goes to the caller.
            with suppress(OSError):
                _build(entry, shape, batches())
            found = _opened(entry, shape)
        if found is not None:
            return found
    images = np.empty(shape, dtype=np.uint8)
    done = 0
    for batch in batches():
        images[done : done + len(batch)] = batch
        done += len(batch)
    return images


def _opened(entry: Path, shape: tuple[int, ...]) -> Images | None:
    try:
        images = map_array(entry / "images.npy")
    except (OSError, ValueError):
        return None
    return images if images.dtype == np.uint8 and images.shape == shape else None


def _build(entry: Path, shape: tuple[int, ...], batches: Iterable[Images]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(entry.parent)
    work = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name[:16]}."))
    try:
        # Plain writes, not a writable map: on a full disk a map dies of SIGBUS, a write raises.
        with open(work / "images.npy", "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for batch in batches:
                file.write(np.ascontiguousarray(batch).data)
            file.flush()
            os.fsync(file.fileno())
        if _opened(entry, shape) is None:
            if entry.exists():
                # A torn entry: moved aside first, as a folder cannot be renamed onto a full one.
                os.replace(entry, work / "torn")
            os.rename(work / "images.npy", _made(work / "entry") / "images.npy")
            os.rename(work / "entry", entry)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _remove_stale(folder: Path) -> None:
    """Remove what builds left that were killed more than a day ago."""
    for left in folder.glob(".*.*"):
        with suppress(OSError):
            if left.is_dir() and time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
