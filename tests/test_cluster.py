"""Real schedulers and workers, as processes of this machine."""

import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from taskdisc import cluster as cluster_module
from taskdisc.cli import main
from taskdisc.cluster import LARGE, Cluster, _packed, _unpacked, pool_for
from taskdisc.cluster_here import ClusterHere
from taskdisc.config import SearchSettings
from taskdisc.discovery.folder import RunFolder, new_folder, open_folder
from taskdisc.discovery.run import run_search
from taskdisc.errors import RunFailedError, SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.taskness.protocol import Protocol
from taskdisc.taskness.score import TrainedScorer

PROJECT = Path(__file__).resolve().parents[1]
PATIENCE_S = 300


def square(item: int, device: str) -> tuple[int, str, int]:
    return item * item, device, torch.get_num_threads()


def refuse(item: int, device: str) -> int:
    if item == 2:
        raise SettingError(f"`item` must not be {item}.")
    return item


def slow(item: int, device: str) -> tuple[int, int]:
    time.sleep(0.25)
    return item, os.getpid()


def first_of(item: tuple[np.ndarray, int], device: str) -> tuple[int, str]:
    array, number = item
    return int(array[number]), os.getcwd()


def dies_once(item: tuple[int, str], device: str) -> int:
    """Where the file of item 3 is not there yet, writes its process number and waits for death."""
    number, folder = item
    if number == 3:
        mark = Path(folder) / "at-3"
        if not mark.exists():
            mark.write_text(str(os.getpid()))
            time.sleep(PATIENCE_S)
    return number * number


def endless(item: str, device: str) -> None:
    while True:
        Path(item).write_text(str(time.time()))
        time.sleep(0.05)


def until(true: Any) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < patience
        time.sleep(0.02)


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    """Workers import this file and this taskdisc."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{PROJECT}{os.pathsep}{Path(__file__).parent}"
    yield
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterHere]:
    """A scheduler with one worker, and one more once the test of a late one has run."""
    with ClusterHere(tmp_path_factory.mktemp("cluster"), n_workers=1) as started:
        yield started


@pytest.fixture(scope="module")
def pool(here: ClusterHere) -> Cluster:
    return Cluster(here.address, "cpu")


def test_results_come_in_the_order_of_the_items(pool: Cluster) -> None:
    assert pool.jobs == 1
    assert list(pool.map(square, range(5))) == [(i * i, "cpu", 1) for i in range(5)]
    assert list(pool.map(square, [])) == []
    assert sorted(pool.map(refuse, iter([3, 1]), ordered=False)) == [1, 3]


def test_an_error_in_the_work_is_the_callers(pool: Cluster) -> None:
    with pytest.raises(SettingError, match="`item` must not be 2"):
        list(pool.map(refuse, range(4)))


def test_a_large_array_travels_once_and_relative_paths_mean_the_same(
    pool: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.arange(LARGE, dtype=np.uint16)
    sent, shared = pool.bytes_sent, pool.bytes_shared
    for copy in (array, array.copy()):
        found = list(pool.map(first_of, [(copy, number) for number in (3, 7, 9)]))
        assert found == [(number, str(tmp_path)) for number in (3, 7, 9)]
    assert pool.bytes_shared - shared == array.nbytes
    assert pool.bytes_sent - sent < 6 * 500


def test_a_worker_that_joins_late_gets_work_and_changes_no_score(
    pool: Cluster, here: ClusterHere, digits: ImageSet
) -> None:
    protocol = Protocol(n_steps=5)
    labelings = random_labelings(4, len(digits), 10, np.random.default_rng(0))

    def scores(of: Pool) -> list[np.ndarray]:
        return [part.validation for part in TrainedScorer(digits, protocol, 0, of).score(labelings)]

    local, alone = scores(Pool(1, "cpu")), scores(pool)
    here.workers.append(here.add_worker())
    pids: set[int] = set()

    def items() -> Iterator[int]:
        number = 0
        patience = time.monotonic() + PATIENCE_S
        while len(pids) < 2 and time.monotonic() < patience:
            yield number
            number += 1

    for number, (item, pid) in enumerate(pool.map(slow, items())):
        assert item == number
        pids.add(pid)
    assert len(pids) == pool.jobs == 2
    assert np.array_equal(local, alone) and np.array_equal(local, scores(pool))


def test_what_a_killed_worker_was_at_is_done_again(
    pool: Cluster, here: ClusterHere, tmp_path: Path
) -> None:
    here.workers.append(here.add_worker())
    results = pool.map(dies_once, [(number, str(tmp_path)) for number in range(8)])
    found = [next(results)]
    mark = tmp_path / "at-3"
    # Items are handed out while results are taken, so the rest is taken by hand until it is there.
    while not mark.exists() or not mark.read_text():
        if len(found) < 3:
            found.append(next(results))
        time.sleep(0.02)
    killed = int(mark.read_text())
    assert killed in [worker.pid for worker in here.workers]
    os.kill(killed, signal.SIGKILL)
    assert found + list(results) == [number * number for number in range(8)]


def test_leaving_early_stops_what_a_worker_is_at(
    pool: Cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # A shell that puts the tests in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    marks = [tmp_path / name for name in "ab"]
    results = pool.map(endless, map(str, marks), ordered=False)

    def interrupt() -> None:
        until(marks[0].exists)
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        next(results)

    def still() -> bool:
        before = marks[0].read_text()
        time.sleep(0.3)
        return marks[0].read_text() == before

    until(still)
    assert next(pool.map(square, [3])) == (9, "cpu", 1)


def test_a_worker_of_another_taskdisc_is_left_out(
    pool: Cluster, here: ClusterHere, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(PROJECT / "taskdisc", tmp_path / "taskdisc")
    (tmp_path / "taskdisc" / "more.py").write_text("# another version\n")
    stranger = here.add_worker({"PYTHONPATH": f"{tmp_path}:{Path(__file__).parent}"})
    said = ""
    patience = time.monotonic() + PATIENCE_S
    while "left out" not in said and time.monotonic() < patience:
        assert stranger.pid not in [pid for _, pid in pool.map(slow, range(4))]
        said += capsys.readouterr().err
    assert re.search(r"worker tcp://\S+ is left out: it has taskdisc .* from the same", said)
    stranger.terminate()


def test_a_killed_scheduler_is_a_failed_run_that_goes_on(tmp_path: Path, digits: ImageSet) -> None:
    settings = SearchSettings(
        scorer="trained",
        proposer="random",
        budget=16,
        batch=8,
        tasks=1,
        protocol={"name": "stratified", "n_steps": 5},
        confirm={"n_splits": 5, "n_random": 20, "random_splits": 1},
    )
    path, straight = tmp_path / "there", tmp_path / "here"
    trials = path / "trials.jsonl"

    def run(folder: RunFolder, pool: Pool) -> None:
        try:
            run_search(digits, settings, pool, folder=folder, progress=Progress())
        finally:
            folder.close()

    with ClusterHere(tmp_path, n_workers=1) as first:

        def kill() -> None:
            until(lambda: trials.exists() and trials.read_text().count("\n") > 2)
            first.scheduler.kill()

        Thread(target=kill).start()
        pool = Cluster(first.address)
        with pytest.raises(RunFailedError, match=f"scheduler at {first.address} was lost; what"):
            run(new_folder(path, settings, digits, pool), pool)
    assert 2 < trials.read_text().count("\n") < 16
    # At the address of the first, to which this process had a connection.
    port = int(first.address.rpartition(":")[2])
    with ClusterHere(tmp_path, n_workers=1, port=port):
        run(open_folder(path)[0], Cluster(first.address))
    run(new_folder(straight, settings, digits, Pool(1, "cpu")), Pool(1, "cpu"))
    for name in ("trials.jsonl", "confirm.jsonl"):
        there, here = (
            re.sub('"seconds": [^,}]+', "", (folder / name).read_text()).splitlines()
            for folder in (path, straight)
        )
        assert there == here and len(here) == len(set(here)) > 15


@pytest.mark.parametrize("words", ["search", "study noise", "mtl", "score labels.csv"])
def test_commands_take_a_cluster(
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text(",".join("1" * 10 + "0" * 40) + "\n")
    monkeypatch.setattr(sys, "argv", ["taskdisc", *words.split(), "--cluster=nobody"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err.splitlines()[-1].startswith("taskdisc: `cluster` must be")


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nobody", "`cluster` must be the address of a Dask scheduler, tcp://host:port or tls:"),
        ("http://127.0.0.1:80", "`cluster` must be the address of a Dask scheduler, tcp://"),
        ("tcp://127.0.0.1", "`cluster` must be the address of a Dask scheduler, tcp://"),
        ("tcp://127.0.0.1:{port}", "where none answers .* start one with: dask scheduler"),
        ("tcp://no.such.host.invalid:{port}", "where none answers"),
        ("tls://127.0.0.1:{port}", "where none answers"),
    ],
)
def test_no_scheduler(address: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "CONNECT_S", 0.5)
    start = time.monotonic()
    with pytest.raises(SettingError, match=words):
        Cluster(address.format(port=free_port()))
    assert time.monotonic() < start + PATIENCE_S


def test_dask_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SettingError, match=r"pip install 'taskdisc\[dask\]'"):
        Cluster("tcp://127.0.0.1:1")


def test_what_cannot_stand_beside_a_cluster() -> None:
    with pytest.raises(SettingError, match=r"`jobs` must be left out beside `cluster`.* got 2"):
        pool_for(2, cluster="tcp://127.0.0.1:1")
    with pytest.raises(SettingError, match="`device` must be auto, cpu or cuda beside `cluster`"):
        pool_for(device="cuda:1", cluster="tcp://127.0.0.1:1")
    assert type(pool_for(1, "cpu")) is Pool


def test_packing_leaves_out_large_arrays_alone() -> None:
    large, small = np.arange(LARGE), np.arange(3)
    objects = np.array([None] * LARGE)
    value = {"a": large, "again": [large], "small": small, "f": lambda x: x + 1, "o": objects}
    packed, arrays = _packed(value)
    assert len(arrays) == 1 and arrays[0] is large
    read = _unpacked(packed, tuple(arrays))
    assert read["a"] is large and read["again"][0] is large
    assert np.array_equal(read["small"], small) and read["f"](1) == 2
    assert len(read["o"]) == LARGE
