"""Append-only JSON lines: what was computed stays computed, whatever stops the process."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from taskdisc.errors import RunFailedError, RunFolderError
from taskdisc.json_text import parse_json


class Journal:
    """One JSON object per line, each append synced to the disk before it returns.

    A torn last line, which a kill or a full disk leaves behind, is cut off when the journal is
    opened; a torn line in the middle is somebody's edit or a damaged disk, and is refused.
    """

    def __init__(self, path: Path) -> None:
        # It is appended to and cut: a link in a folder of somebody else's would let it be any file.
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise RunFolderError(
                f"'{path}' must be a file of its run folder, got a link or no plain file; put a "
                "copy in its place."
            )
        self.path = path
        self.lines, intact = _read(path)
        if path.exists() and intact < path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(intact)
                os.fsync(file.fileno())

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write the lines in one go and keep them in `self.lines`.

        Raises:
            RunFailedError: the disk is full or the folder cannot be written.
        """
        new = [dict(line) for line in lines]
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in new)
        try:
            with self.path.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFailedError(
                f"'{self.path}' cannot be written ({error.strerror}); everything before is kept: "
                "mend that, then resume."
            ) from error
        self.lines.extend(new)


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
    return _read(path)[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The intact lines and the number of bytes that they take."""
    if not path.exists():
        return [], 0
    lines: list[dict[str, Any]] = []
    intact = 0
    data = path.read_bytes()
    for number, raw in enumerate(data.splitlines(keepends=True), start=1):
        line = _parse(raw)
        if line is None:
            if intact + len(raw) == len(data):
                break  # torn by whatever stopped the writer
            raise RunFolderError(
                f"line {number} of '{path}' must be a JSON object; the file was damaged: "
                "restore it, or start a new run in another folder."
            )
        lines.append(line)
        intact += len(raw)
    return lines, intact


def _parse(raw: bytes) -> dict[str, Any] | None:
    if not raw.endswith(b"\n"):
        return None
    try:
        line = parse_json(raw)
    except ValueError:  # includes text that is not UTF-8
        return None
    return line if isinstance(line, dict) else None
