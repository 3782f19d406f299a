"""Which workers get work, and on which device, by what they say of themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from taskdisc.cluster import workers as workers_module
from taskdisc.cluster.on_worker import environment
from taskdisc.cluster.workers import Workers
from taskdisc.errors import SettingError


class FakeScheduler:
    """A client and its scheduler, whose workers say what they are told to."""

    address = "tcp://somewhere:1"

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        self.threads: dict[str, int] = {}
        self.paused: set[str] = set()
        self.asked: list[str] = []
        self.scheduler = SimpleNamespace(ncores_running=None)

    def check(self) -> None:
        pass

    @contextmanager
    def reached(self) -> Iterator[Any]:
        yield self

    def nthreads(self) -> dict[str, int]:
        return {address: self.threads.get(address, 1) for address in self.said}

    def sync(self, function: object) -> dict[str, int]:
        return {address: 1 for address in self.said if address not in self.paused}

    def run(self, function: object, workers: list[str], on_error: str) -> dict[str, Any]:
        self.asked += workers
        return {address: self.said[address] for address in workers}


def worker(*gpus: str, host: str = "one", **environment_of: str) -> dict[str, Any]:
    """What a worker says."""
    return {"environment": {**environment(), **environment_of}, "host": host, "gpus": list(gpus)}


@pytest.fixture(autouse=True)
def _look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "LOOK_S", 0.0)


def devices(workers: Workers) -> dict[str, str]:
    return {address: worker.device for address, worker in workers.fit.items()}


def of(said: dict[str, Any], device: str = "auto") -> Workers:
    return Workers(FakeScheduler(said), device)  # type: ignore[arg-type]


def test_workers_of_a_host_share_its_gpus_out() -> None:
    there = FakeScheduler({a: worker("0", "1") for a in "ab"} | {"c": worker("0", host="two")})
    workers = Workers(there, "auto")  # type: ignore[arg-type]
    assert not workers.on_cpu
    assert devices(workers) == {"a": "cuda:0", "b": "cuda:1", "c": "cuda:0"}
    # The one that takes the place of another takes its GPU.
    del there.said["b"]
    workers.look()
    there.said["d"] = worker("0", "1")
    workers.look()
    assert devices(workers) == {"a": "cuda:0", "c": "cuda:0", "d": "cuda:1"}


def test_workers_that_see_the_gpus_in_other_orders_take_different_ones() -> None:
    gpus = ["0", "1", "2", "3"]
    said = {str(i): worker(*gpus[i:], *gpus[:i]) for i in range(4)}
    assert devices(of(said)) == dict.fromkeys("0123", "cuda:0")


def test_all_work_on_cpus_where_some_have_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"a": worker("0"), "b": worker()}
    assert devices(of(said)) == {"a": "cpu", "b": "cpu"}
    assert "1 of 2 workers have a GPU" in capsys.readouterr().err
    assert devices(of(said, "cuda")) == {"a": "cuda:0"}
    assert "no work for b: it has no GPU" in capsys.readouterr().err
    assert devices(of(said, "cpu")) == {"a": "cpu", "b": "cpu"}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (worker(numpy="1.0"), r"it has numpy 1\.0 and this process has .* same environment"),
        (worker(Python="3.9"), "it has Python 3.9 and"),
        (ModuleNotFoundError("No module named 'x'"), r"it lacks a package \(No module named 'x'\)"),
        (ValueError("?"), r"it does not answer as it should \(ValueError: \?\)"),
    ],
)
def test_workers_that_do_not_fit(said: Any, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingError, match=f"`cluster` must have a worker that fits.*{why}"):
        of({"a": said})
    capsys.readouterr()
    there = FakeScheduler({"a": worker(), "b": said, "c": said})
    workers = Workers(there, "cpu")  # type: ignore[arg-type]
    workers.look()
    assert list(workers.fit) == ["a"] and there.asked == ["a", "b", "c"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("taskdisc: no work for b and 1 more: it ")


def test_a_worker_that_cannot_be_reached_is_asked_again() -> None:
    there = FakeScheduler({"a": worker(), "b": OSError("timed out")})
    workers = Workers(there, "cpu")  # type: ignore[arg-type]
    assert list(workers.fit) == ["a"]
    there.said["b"] = worker()
    workers.look()
    assert list(workers.fit) == ["a", "b"]


def test_what_a_user_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    there = FakeScheduler({"a": worker(), "b": worker()})
    there.threads = {"b": 8}
    workers = Workers(there, "cpu")  # type: ignore[arg-type]
    there.paused = {"a"}
    for _ in range(2):
        workers.look()
        assert workers.paused == {"a"}
    there.said.clear()
    for _ in range(2):
        workers.look()
    assert not workers.fit and not workers.paused
    said = capsys.readouterr().err.splitlines()
    assert ["for all threads of b;" in said[0], "no work for now for a:" in said[1]] == [True, True]
    assert said[2].endswith("has no worker any more; waiting for one.") and len(said) == 3
