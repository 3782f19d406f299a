"""One writer per run folder, by a lock that the system frees in whatever way its holder ends."""

import fcntl
import json
import os
import shlex
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from weakref import WeakSet

from taskdisc.errors import RunFolderError
from taskdisc.json_text import parse_json

LOCK = "lock"
"""A file of the run folder; it stays there, and only says something while it is held."""

PATIENCE_S = 0.5
"""How long to try for: others look at the lock for moments, and the dying hold it for moments."""


class Lock:
    """The lock of a folder, held until it is closed or this process ends.

    It is an flock(2), which belongs to the open file and not to the path: it goes when the last
    process closes the file, so a kill -9 frees it, and a file that was left behind locks nothing.
    Worker processes never have the file open: they are programs of their own, which Python's files
    do not reach (PEP 446), and a forked child closes it. On NFS, Linux makes it a lock of the
    server, which sees all machines; a machine that is cut off keeps it until the server gives up.

    Raises:
        RunFolderError: another process holds it, the folder cannot be written, or its file system
            has no locks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunFolderError(
                f"the run folder must be one that can be written, got '{folder}' "
                f"({error.strerror})."
            ) from error
        try:
            self._take()
        except BaseException:
            os.close(self._handle)
            raise
        _held.add(self)

    def _take(self) -> None:
        patience = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < patience:
                    time.sleep(0.02)
                    continue
                raise RunFolderError(
                    f"the run folder '{self.folder}' must have one writer, and "
                    f"{_words(self._handle)} is writing to it; wait for it or stop it."
                ) from error
            except OSError as error:
                raise RunFolderError(
                    f"the run folder must be on a file system that has locks, got '{self.folder}' "
                    f"({error.strerror}); name a folder elsewhere by --out."
                ) from error
            break
        try:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, json.dumps(_this_process()).encode(), 0)
        except OSError as error:
            raise RunFolderError(
                f"the run folder must be one that can be written, got '{self.folder}' "
                f"({error.strerror})."
            ) from error

    def close(self) -> None:
        """Let another process write to the folder."""
        if self in _held:
            _held.remove(self)
            os.ftruncate(self._handle, 0)
            os.close(self._handle)


_held: WeakSet[Lock] = WeakSet()


def _close_in_child() -> None:
    for lock in list(_held):
        os.close(lock._handle)  # which leaves the lock to the parent
        _held.remove(lock)


os.register_at_fork(after_in_child=_close_in_child)


def holder(folder: Path) -> str:
    """Who writes to a folder, in words; nothing if nobody does, or if no lock says so."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _words(handle)
    except OSError:
        return ""
    finally:
        os.close(handle)
    return ""


def _this_process() -> dict[str, str | int]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _words(handle: int) -> str:
    try:
        said = parse_json(os.pread(handle, 100_000, 0))
        return f"process {said['pid']} on {said['host']} ({said['command']}, since {said['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has only just taken it
