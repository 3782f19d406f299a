"""One writer per run folder, whatever becomes of it, and folders that only one process makes."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskdisc.config import SearchSettings
from taskdisc.errors import RunFolderError
from taskdisc.folder import make_folder
from taskdisc.listing import list_runs
from taskdisc.lock import LOCK, PATIENCE_S, Lock, holder
from taskdisc.pool import Pool

HOLDING = """if True:
    import os, sys, time
    from pathlib import Path
    from taskdisc.lock import Lock
    from taskdisc.pool import Pool

    def work(item, device):
        time.sleep(item)
        return os.getpid()

    lock = Lock(Path(sys.argv[1]))
    forked = os.fork()
    if not forked:
        time.sleep(600)
    results = Pool(2, "cpu").map(work, [0, 0.5, 600, 600], ordered=False)
    print(forked, next(results), next(results), flush=True)
    next(results)
"""


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    held = Lock(tmp_path)
    words = rf"process {os.getpid()} on {socket.gethostname()} \(.*, since 2.* UTC\) is writing"
    with pytest.raises(RunFolderError, match=f"must have one writer, and {words} to it; wait"):
        Lock(tmp_path)
    held.close()
    Lock(tmp_path).close()


def test_the_killed_hold_nothing_though_their_workers_still_live(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", HOLDING, str(tmp_path)]
    children: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            children += map(int, process.stdout.readline().split())
            assert f"process {process.pid} on" in holder(tmp_path)
            with pytest.raises(RunFolderError, match=f"one writer, and process {process.pid} on"):
                Lock(tmp_path)
            for pid in set(children):  # so that they outlive what follows for sure
                os.kill(pid, signal.SIGSTOP)
            process.kill()
            process.wait()
            assert holder(tmp_path) == ""
            assert (tmp_path / LOCK).stat().st_size  # what it said is still there, and is past
            for pid in set(children):
                os.kill(pid, 0)
            Lock(tmp_path).close()
        finally:
            process.kill()
            for pid in set(children):
                os.kill(pid, signal.SIGKILL)
    assert len(set(children)) >= 2


def test_looking_keeps_nobody_out(tmp_path: Path) -> None:
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            holder(tmp_path)

    with ThreadPoolExecutor(2) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        try:
            for _ in range(50):
                Lock(tmp_path).close()
        finally:
            done.set()
        assert [each.result() for each in looking] == [None, None]


def test_a_holder_that_has_said_nothing_yet(tmp_path: Path) -> None:
    with (tmp_path / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(tmp_path) == "another process"
        with pytest.raises(RunFolderError, match="and another process is writing to it"):
            Lock(tmp_path)
    assert holder(tmp_path) == ""
    assert holder(tmp_path / "none") == ""


def test_who_is_just_ending_is_waited_for(tmp_path: Path) -> None:
    held = Lock(tmp_path)
    ending = threading.Timer(PATIENCE_S / 5, held.close)
    ending.start()
    Lock(tmp_path).close()
    ending.join()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunFolderError, match=r"file system that has locks, got .*No locks avail"):
        Lock(tmp_path)
    (tmp_path / LOCK).touch()
    assert holder(tmp_path) == ""


def made(out: Path | None) -> Path | str:
    try:
        lock = make_folder(out, "search", "search", SearchSettings(), None, Pool(1, "cpu"))
    except RunFolderError as error:
        return str(error)
    lock.close()
    return lock.folder


@pytest.mark.parametrize("exists", [False, True])
def test_of_many_who_ask_for_one_folder_one_gets_it(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "deep" / "run"
    if exists:
        out.mkdir(parents=True)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(made, [out] * 8))
    assert answers.count(out) == 1
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert len(refused) == 7
    assert all("one writer" in text or "holds a run; go on with it" in text for text in refused)


def test_many_who_ask_for_any_folder_get_one_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(made, [None] * 16))
    assert {str(answer) for answer in answers} == {f"runs/search-{i:03d}" for i in range(1, 17)}


def test_a_folder_whose_maker_was_killed_is_taken_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in (LOCK, "environment.json", ".environment.json.x1", ".config.yaml.y2"):
        (out / name).write_text("half")
    assert made(out) == out
    assert "holds a run" in str(made(out))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "locksmith").touch()
    assert "holds other files" in str(made(tmp_path / "other"))


def test_a_run_that_is_written_to_is_listed_as_running(tmp_path: Path) -> None:
    lock = make_folder(tmp_path / "a", "search", "search", SearchSettings(), None, Pool(1, "cpu"))
    assert [row["state"] for row in list_runs(tmp_path)] == ["running"]
    lock.close()
    assert [row["state"] for row in list_runs(tmp_path)] == ["unfinished"]
