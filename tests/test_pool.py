import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from taskdisc.errors import RunFailedError, SettingError
from taskdisc.pool import Pool


def square(item: int, device: str) -> tuple[int, str]:
    return item * item, device


def threads(item: int, device: str) -> int:
    return torch.get_num_threads()


def refuse(item: int, device: str) -> int:
    if item == 2:
        raise SettingError(f"`item` must not be {item}.")
    return item


def die(item: int, device: str) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_items(jobs: int) -> None:
    pool = Pool(jobs, "cpu")
    assert list(pool.map(square, range(9))) == [(i * i, "cpu") for i in range(9)]
    assert list(pool.map(square, [])) == []
    assert list(pool.map(square, iter([3]))) == [(9, "cpu")]


@pytest.mark.parametrize("jobs", [1, 2])
def test_workers_have_one_thread(jobs: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(Pool(jobs, "cpu").map(threads, range(3))) == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_the_work_is_the_callers(jobs: int) -> None:
    with pytest.raises(SettingError, match="`item` must not be 2"):
        list(Pool(jobs, "cpu").map(refuse, range(4)))


def test_one_worker_hands_over_each_result_as_it_comes() -> None:
    results = Pool(1, "cpu").map(refuse, range(4))
    assert [next(results), next(results)] == [0, 1]


def test_a_killed_worker_is_a_failed_run_and_the_next_one_works(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pool = Pool(2, "cpu")
    with pytest.raises(RunFailedError, match=r"worker process died though it worked alone.*`jobs`"):
        list(pool.map(die, range(6)))
    assert "what it lost is worked on again, by 1 at a time." in capfd.readouterr().err
    assert list(pool.map(square, range(3))) == [(0, "cpu"), (1, "cpu"), (4, "cpu")]


def die_some_times(times: int, folder: Path, item: int, device: str) -> int:
    """Squares; whoever works on 3 is killed the first times, as by a lack of memory."""
    if item == 3:
        with (folder / "tries").open("a") as file:
            file.write("3")
        if (folder / "tries").stat().st_size <= times:
            os.kill(os.getpid(), signal.SIGKILL)
    return item * item


@pytest.mark.parametrize(("jobs", "fewer", "ordered"), [(4, [2, 1], True), (2, [1], False)])
def test_what_a_killed_worker_loses_is_worked_on_again_by_fewer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], jobs: int, fewer: list[int], ordered: bool
) -> None:
    pool = Pool(jobs, "cpu")
    work = partial(die_some_times, len(fewer), tmp_path)
    # A generator, for what was taken from it and lost cannot be taken again.
    results = list(pool.map(work, iter(range(12)), ordered=ordered))
    assert (results if ordered else sorted(results)) == [i * i for i in range(12)]
    assert pool.jobs == 1
    said = capfd.readouterr().err.splitlines()
    assert [line.split(", ")[-1] for line in said] == [f"by {n} at a time." for n in fewer]


def test_no_jobs_stands_for_every_core() -> None:
    assert Pool(0, "cpu").jobs >= 1


@pytest.mark.parametrize(
    ("n_gpus", "device", "devices"),
    [
        (0, "auto", ["cpu"]),
        (0, "cpu", ["cpu"]),
        (2, "auto", ["cuda:0", "cuda:1"]),
        (2, "cpu", ["cpu"]),
        (2, "cuda", ["cuda:0", "cuda:1"]),
        (2, "cuda:1", ["cuda:1"]),
    ],
)
def test_devices(
    n_gpus: int, device: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    pool = Pool(0, device)
    assert pool.devices == devices
    assert pool.jobs == len(devices) or devices == ["cpu"]


def test_items_go_round_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    seen = [device for _, device in Pool(1, "cuda").map(square, range(3))]
    assert seen == ["cuda:0", "cuda:1", "cuda:0"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1, "cpu"), "`jobs` must be 0 .* or more, got -1"),
        ((1, "gpu"), "`device` must be one of auto, cpu, cuda, cuda:<index>, got 'gpu'"),
        ((1, ""), "`device` must be one of"),
        ((1, "CPU"), "`device` must be one of"),
        ((1, "cpu:1"), "`device` must be one of"),
        ((1, "cpu:"), "`device` must be one of"),
        ((1, "cuda:"), "`device` must be one of"),
        ((1, "cuda:-1"), "`device` must be one of"),
        ((1, "cuda:²"), "`device` must be one of"),
        ((1, "cuda:2"), r"`device` must be one of the 2 GPUs .* got 'cuda:2'"),
    ],
)
def test_bad_arguments(
    arguments: tuple[int, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingError, match=words):
        Pool(*arguments)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_no_gpu(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingError, match=r"`device` must be available here.*--device cpu"):
        Pool(1, device)


WORKING = """if True:
    import os, time
    from taskdisc.pool import Pool

    def work(item, device):
        time.sleep(item)
        return os.getpid()

    for pid in Pool(2, "cpu").map(work, [0.5, 0.5, 600, 600]):
        print(pid, flush=True)
"""


def test_workers_do_not_outlive_a_killed_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKING],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        workers = {int(process.stdout.readline()) for _ in range(2)}
        assert process.pid not in workers
        process.kill()
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if is_running(pid)]


def is_running(pid: int) -> bool:
    """Whether a process does anything; one that has ended may wait to be noticed for a while."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")
