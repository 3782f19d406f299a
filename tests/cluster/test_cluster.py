"""Real schedulers and workers, as processes of this machine."""

import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread, Timer
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pytest
import torch
from distributed import KilledWorker

from taskdisc.cluster import Cluster, pool_for, scheduler
from taskdisc.cluster.here import ClusterHere
from taskdisc.cluster.on_worker import Cancelled
from taskdisc.cluster.packing import LARGE
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

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300


def square(item: int, device: str) -> tuple[int, str, int]:
    return item * item, device, torch.get_num_threads()


def refuse(item: int, device: str) -> int:
    if item == 2:
        raise SettingError(f"`item` must not be {item}.")
    return item


def slow(item: int, device: str) -> tuple[int, int]:
    time.sleep(0.1)
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


class Deadly:
    """A number whose worker dies the first time that it is to be sent."""

    def __init__(self, number: int, mark: Path) -> None:
        self.number, self.mark = number, mark

    def __reduce__(self) -> Any:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return int, (self.number,)


def deadly(item: tuple[int, str], device: str) -> Any:
    number, mark = item
    return Deadly(number, Path(mark)) if number == 2 else number


def stopped(item: tuple[int, str, str], device: str) -> int:
    """Whoever works on 2 is stopped in this way the first times."""
    number, folder, times = item
    if number == 2:
        kind, _, most = times.partition(":")
        mark = Path(folder) / "times"
        n_times = mark.stat().st_size if mark.exists() else 0
        if n_times < int(most):
            mark.write_text("." * (n_times + 1))
            raise (
                Cancelled
                if kind == "ended"
                else KilledWorker("a task", SimpleNamespace(address="x"), 1)
            )
    return number * number


def endless_but_first(item: str, device: str) -> None:
    while not item.endswith("none"):
        Path(item).write_text(str(time.time()))
        time.sleep(0.05)


def until(true: Any) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < patience
        time.sleep(0.02)


def test_results_come_in_the_order_of_the_items(pool: Cluster) -> None:
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

    local = scores(Pool(1, "cpu"))
    late = here.add_worker()
    here.workers.append(late)
    pids: set[int] = set()

    def items() -> Iterator[int]:
        number = 0
        patience = time.monotonic() + PATIENCE_S
        while late.pid not in pids and time.monotonic() < patience:
            yield number
            number += 1

    for number, (item, pid) in enumerate(pool.map(slow, items())):
        assert item == number
        pids.add(pid)
    assert late.pid in pids and pool.jobs >= len(pids) == 3
    assert np.array_equal(local, scores(pool))


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


def test_what_dies_with_its_worker_before_it_is_fetched_is_done_again(
    pool: Cluster,
    here: ClusterHere,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("taskdisc.cluster.pool.FETCH_S", 0.5)
    here.workers.append(here.add_worker())
    items = [(number, str(tmp_path / "mark")) for number in range(5)]
    assert list(pool.map(deadly, items)) == list(range(5))
    assert (tmp_path / "mark").exists()
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("times", ["ended:1", "killed:1", "killed:4"])
def test_what_a_worker_was_stopped_at_is_done_again_but_not_for_ever(
    pool: Cluster, tmp_path: Path, times: str
) -> None:
    results = pool.map(stopped, [(number, str(tmp_path), times) for number in range(5)])
    if times.endswith("4"):
        with pytest.raises(RunFailedError, match="4 workers of the cluster died or were ended"):
            list(results)
    else:
        assert list(results) == [0, 1, 4, 9, 16]
    assert (tmp_path / "times").read_text() == "." * int(times[-1])


def test_a_worker_without_memory_gets_no_work(
    pool: Cluster, here: ClusterHere, capfd: pytest.CaptureFixture[str]
) -> None:
    without = here.add_worker({"DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "0.0001"})
    said, found = "", 0
    patience = time.monotonic() + PATIENCE_S
    while "no work for now" not in said and time.monotonic() < patience:
        results = list(pool.map(slow, range(4)))
        assert [item for item, _ in results] == list(range(4))
        assert without.pid not in [pid for _, pid in results]
        said, found = said + capfd.readouterr().err, found + 1
    assert "Dask has paused it, mostly for lack of memory" in said
    without.kill()


def test_two_clients_share_the_workers(
    pool: Cluster, here: ClusterHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_clients", {})
    other = Cluster(here.address, "cpu")
    both = zip(pool.map(slow, range(6)), other.map(square, range(6)), strict=True)
    assert [(a[0], b[0]) for a, b in both] == [(number, number**2) for number in range(6)]


@pytest.mark.parametrize("how", ["interrupted", "closed"])
def test_leaving_early_stops_what_a_worker_is_at(
    pool: Cluster, tmp_path: Path, request: pytest.FixtureRequest, how: str
) -> None:
    mark = tmp_path / "a"
    if how == "closed":
        results = pool.map(endless_but_first, [str(tmp_path / "none"), str(mark)], ordered=False)
        next(results)
        until(mark.exists)
        results.close()
    else:
        # A shell that puts the tests in the background has them ignore Ctrl-C.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

        def interrupt() -> None:
            until(mark.exists)
            os.kill(os.getpid(), signal.SIGINT)

        Thread(target=interrupt).start()  # there is no mark before work is handed out
        with pytest.raises(KeyboardInterrupt):
            next(pool.map(endless_but_first, [str(mark)]))

    def still() -> bool:
        before = mark.read_text()
        time.sleep(0.3)
        return mark.read_text() == before

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
    while "no work for" not in said and time.monotonic() < patience:
        assert stranger.pid not in [pid for _, pid in pool.map(slow, range(4))]
        said += capsys.readouterr().err
    assert re.search(r"no work for tcp://\S+: it has taskdisc .* from the same", said)
    stranger.kill()


def test_a_killed_scheduler_is_a_failed_run_that_goes_on(tmp_path: Path, digits: ImageSet) -> None:
    settings = SearchSettings(
        scorer="trained",
        proposer="random",
        budget=12,
        batch=6,
        tasks=1,
        protocol={"name": "stratified", "n_steps": 5},
        confirm={"n_splits": 2, "n_random": 20, "random_splits": 1},
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
    assert 2 < trials.read_text().count("\n") < 12
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
        assert there == here and len(here) == len(set(here)) > 11


def test_whatever_goes_wrong_when_the_scheduler_has_gone_is_its_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = SimpleNamespace(status="running")
    monkeypatch.setattr(scheduler, "_connected", lambda address: client)
    connection = scheduler.Scheduler("tcp://somewhere:1")
    with pytest.raises(KeyError), connection.reached():
        raise KeyError("of ours")
    for status, error in (("running", OSError("cut")), ("closed", KeyError("closed"))):
        client.status = "running"
        with pytest.raises(RunFailedError, match="e:1 was lost"), connection.reached():
            client.status = status
            raise error
    with pytest.raises(RunFailedError, match="was lost"), connection.reached():
        pass
    connection.cancel([object()])  # without a word


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
    monkeypatch.setattr(scheduler, "CONNECT_S", 0.5)
    start = time.monotonic()
    with pytest.raises(SettingError, match=words):
        Cluster(address.format(port=free_port()))
    assert time.monotonic() < start + PATIENCE_S


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"`cluster` must be a file of dask scheduler --scheduler-file, .*No such file"),
        ("", "`cluster` must be a file of dask scheduler --scheduler-file"),
        ("[]", "`cluster` must be a file of dask scheduler --scheduler-file"),
        ('{"address": 3}', "`cluster` must be the address of a Dask scheduler, .* got 3"),
        ('{"address": "x"}', "`cluster` must be the address of a Dask scheduler, .* got 'x'"),
    ],
)
def test_bad_scheduler_files(
    text: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "FILE_S", 0.3)
    file = tmp_path / "dask.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingError, match=words):
        Cluster(str(file))


def test_the_file_of_a_scheduler_that_is_just_starting(
    here: ClusterHere, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dask.json"
    Timer(0.5, file.write_text, [here.scheduler_file.read_text()]).start()
    assert list(Cluster(str(file), "cpu").map(square, [3])) == [(9, "cpu", 1)]
    assert f"waiting for '{file}'" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_only_who_has_the_certificate_gets_in(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=here"),
        ],
        check=True,
        capture_output=True,
    )
    options = ("--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key)
    own = {"key": key, "cert": certificate}
    with ClusterHere(tmp_path, n_workers=1, options=options) as there:
        assert there.address.startswith("tls://")
        with pytest.raises(SettingError, match="where none answers"):
            Cluster(there.address)
        tls = "distributed.comm.tls"
        with dask.config.set({f"{tls}.ca-file": certificate, f"{tls}.client": own}):
            assert list(Cluster(there.address).map(square, [3])) == [(9, "cpu", 1)]


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
