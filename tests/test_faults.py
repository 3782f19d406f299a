"""Faults of the machine: full disks, folders that cannot be written, a clock set back."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import SearchSettings, settings_from
from taskdisc.discovery.folder import new_folder, open_folder
from taskdisc.discovery.run import run_search
from taskdisc.errors import RunFailedError, RunFolderError
from taskdisc.images import ImageSet
from taskdisc.journal import Journal
from taskdisc.listing import list_runs
from taskdisc.lock import Lock
from taskdisc.pool import Pool
from taskdisc.progress import PlainProgress, Progress

SETTINGS: dict[str, Any] = {
    "budget": 40,
    "tasks": 1,
    "proposer": "TwoPointsDE",
    "closed_form": {"kernel": "linear"},
    "protocol": {"n_steps": 8, "n_splits": 2},
    "confirm": {"n_splits": 2, "n_random": 20, "random_splits": 1},
}
SEARCH = [
    *("search", "--set=images.per_class=4", "--jobs=1"),
    *(f"--set={name}={json.dumps(value)}" for name, value in SETTINGS.items()),
]


def taskdisc(
    *arguments: str, cwd: Path, largest_file: int | None = None
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, whose files may not grow beyond some bytes."""

    def limit() -> None:
        if largest_file is not None:
            # Without its signal, the limit is an error of write(2), as a full disk is.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))

    command = [sys.executable, "-m", "taskdisc", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, preexec_fn=limit)


def timeless(folder: Path) -> list[Any]:
    """What the journals and the result of a run hold, but for times."""

    def without(line: dict[str, Any]) -> dict[str, Any]:
        return {name: line[name] for name in line if name != "seconds"}

    journals = [(folder / f"{name}.jsonl").read_text() for name in ("trials", "confirm")]
    lines = [without(json.loads(line)) for text in journals for line in text.splitlines()]
    return [*lines, without(json.loads((folder / "result.json").read_text()))]


def test_a_disk_that_fills_up_stops_a_search_which_goes_on_later(tmp_path: Path) -> None:
    straight = taskdisc(*SEARCH, "--out=straight", cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    n_bytes = (tmp_path / "straight" / "confirm.jsonl").stat().st_size // 2
    assert (tmp_path / "straight" / "trials.jsonl").stat().st_size < n_bytes
    stopped = taskdisc(*SEARCH, "--out=run", cwd=tmp_path, largest_file=n_bytes)
    assert stopped.returncode == 1
    assert stopped.stderr.splitlines()[-1] == (
        "taskdisc: 'run/confirm.jsonl' cannot be written (File too large); everything before is "
        "kept: mend that, then resume."
    )
    kept = (tmp_path / "run" / "confirm.jsonl").read_bytes()
    assert kept.count(b"\n") > 1 and not (tmp_path / "run" / "result.json").exists()
    resumed = taskdisc("search", "--resume=run", "--jobs=1", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert timeless(tmp_path / "run") == timeless(tmp_path / "straight")
    whole = kept[: kept.rfind(b"\n") + 1]
    assert (tmp_path / "run" / "confirm.jsonl").read_bytes().startswith(whole)


def test_an_append_after_one_that_failed_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "cells.jsonl")
    journal.append([{"cell": 0}])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_half_way(tmp_path / "cells.jsonl", 5))
        with pytest.raises(RunFailedError, match="No space left"):
            journal.append([{"cell": 1}, {"cell": 2}])
    assert journal.lines == [{"cell": 0}]
    journal.append([{"cell": 1}])
    assert (tmp_path / "cells.jsonl").read_text() == '{"cell": 0}\n{"cell": 1}\n'
    assert journal.lines == Journal(tmp_path / "cells.jsonl").lines == [{"cell": 0}, {"cell": 1}]


def full_half_way(file: Path, n_bytes: int) -> Any:
    whole = file.stat().st_size

    def sync(handle: int) -> None:
        os.ftruncate(handle, whole + n_bytes)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return sync


# Even for root, whom permissions do not stop: nothing can be made in /proc, nor below a file.
@pytest.mark.parametrize("place", ["/proc/run", "file/run"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, digits: ImageSet, place: str) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / place  # of an absolute path that alone
    with pytest.raises(RunFolderError, match=r"`out` must be a folder that can be written, got"):
        new_folder(out, SearchSettings(), digits, Pool(1, "cpu"))


def test_a_folder_that_has_become_read_only(
    tmp_path: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **more: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))

    new_folder(tmp_path / "run", SearchSettings(), digits, Pool(1, "cpu")).close()
    journal = Journal(tmp_path / "run" / "trials.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(RunFailedError, match=r"cannot be written \(Read-only file system\)"):
            journal.append([{"trial": 0}])
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(RunFolderError, match=r"can be written, got .*\(Read-only file system"):
            Lock(tmp_path / "run")
        with pytest.raises(
            RunFolderError, match=r"must be one that can be written, got .*Read-only"
        ):
            new_folder(tmp_path / "new", SearchSettings(), digits, Pool(1, "cpu"))
        (row,) = list_runs(tmp_path)  # what is only read needs no lock
    assert row["state"] == "unfinished"


def test_a_clock_set_back_changes_nothing(
    tmp_path: Path,
    digits: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = digits.take(np.arange(0, 40, 2))
    settings = settings_from(SearchSettings, SETTINGS)

    def run(name: str, progress: Progress) -> Path:
        folder = new_folder(tmp_path / name, settings, images, Pool(1, "cpu"))
        run_search(images, settings, Pool(1, "cpu"), folder=folder, progress=progress)
        folder.close()
        return tmp_path / name

    straight = run("straight", Progress())
    real, calls = time.time, 0

    def back() -> float:
        nonlocal calls
        calls += 1
        return real() - 3600.0 * calls  # an hour at each look

    monkeypatch.setattr(time, "time", back)
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * back()))
    monkeypatch.setattr("taskdisc.progress.PLAIN_INTERVAL_S", 0.0)
    with PlainProgress() as progress:
        run("set-back", progress)
    folder, _ = open_folder(tmp_path / "set-back")
    assert all(0 <= line["seconds"] < 600 for line in folder.trials.lines)
    assert all(0 <= line["seconds"] < 600 for line in folder.evidence.lines)
    folder.close()
    assert timeless(tmp_path / "set-back") == timeless(straight)
    seconds = json.loads((tmp_path / "set-back" / "result.json").read_text())["seconds"]
    assert 0 <= seconds["search"] < 600 and 0 <= seconds["confirm"] < 600
    told = capsys.readouterr().err.splitlines()
    assert len(told) > 10
    assert not [line for line in told if "-" in line.partition(", ")[2].replace("best -", "")]
    assert [row["state"] for row in list_runs(tmp_path)] == ["finished", "finished"]
