"""Append-only JSON lines: what was computed stays computed, whatever stops the process."""

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from taskdisc.errors import RunFailedError, RunFolderError
from taskdisc.json_text import parse_json


class Lines(Sequence[dict[str, Any]]):
    """The lines of a journal, read from its file whenever they are asked for.

    Only where each begins is kept, 8 bytes a line, so that a million lines take no memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends = array("q", [0])  # of the line before each, and of the last

    @property
    def size(self) -> int:
        """Bytes of all lines."""
        return self._ends[-1]

    def add(self, n_bytes: int) -> None:
        """One more line, which the file now has."""
        self._ends.append(self._ends[-1] + n_bytes)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        n = len(self)  # those of now: more may be appended on the way
        if n:
            with self._path.open("rb") as file:
                for _ in range(n):
                    yield json.loads(file.readline())

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        with self._path.open("rb") as file:
            file.seek(self._ends[number])
            return dict(json.loads(file.readline()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class Journal:
    """One JSON object per line, each append synced to the disk before it returns.

    A torn last line, which a kill or a full disk leaves behind, is cut off when the journal is
    opened or appended to; a torn line in the middle is somebody's edit or a damaged disk, and is
    refused.

    Raises:
        RunFolderError: a line before the last is no JSON object.
    """

    def __init__(self, path: Path) -> None:
        # It is appended to and cut: a link in a folder of somebody else's would let it be any file.
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise RunFolderError(
                f"'{path}' must be a file of its run folder, got a link or no plain file; put a "
                "copy in its place."
            )
        self.path = path
        self.lines = Lines(path)
        for raw, _ in _intact(path):
            self.lines.add(len(raw))
        if path.exists() and self.lines.size < path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(self.lines.size)
                os.fsync(file.fileno())

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write the lines in one go; `self.lines` has them from then on.

        Raises:
            RunFailedError: the disk is full or the folder cannot be written.
        """
        new = [(json.dumps(line, allow_nan=False) + "\n").encode() for line in lines]
        try:
            with self.path.open("ab") as file:
                if file.tell() > self.lines.size:  # an append before this one failed half way
                    file.truncate(self.lines.size)
                file.write(b"".join(new))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFailedError(
                f"'{self.path}' cannot be written ({error.strerror}); everything before is kept: "
                "mend that, then resume."
            ) from error
        for raw in new:
            self.lines.add(len(raw))


class MemoryJournal:
    """The same in memory, for searches without a run folder."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Keep the lines."""
        self.lines.extend(dict(line) for line in lines)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The intact lines of a journal, without touching it; none if there is no such file.

    Raises:
        RunFolderError: a line before the last is no JSON object.
    """
    return list(lines_of(path))


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """The same one by one, for journals that are too long to be held.

    Raises:
        RunFolderError: a line before the last is no JSON object.
    """
    for _, line in _intact(path):
        yield line


def _intact(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The intact lines, as they are in the file and as they are meant."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = _parse(raw)
            if line is None:
                # Torn by whatever stopped the writer, or just being written.
                if not raw.endswith(b"\n") or not file.readline():
                    return
                raise RunFolderError(
                    f"line {number} of '{path}' must be a JSON object; the file was damaged: "
                    "restore it, or start a new run in another folder."
                )
            yield raw, line


def _parse(raw: bytes) -> dict[str, Any] | None:
    if not raw.endswith(b"\n"):
        return None
    try:
        line = parse_json(raw)
    except ValueError:  # includes text that is not UTF-8
        return None
    return line if isinstance(line, dict) else None
