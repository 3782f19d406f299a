"""Work is stopped when nobody waits for it, and nothing is stopped after it."""

import random
import sys
import time
from collections.abc import Iterator

import pytest

from taskdisc.cluster.on_worker import Cancelled, facts, stopped_when


@pytest.fixture(autouse=True)
def _threads_in_turn() -> Iterator[None]:
    """Threads take turns so often that they meet at every place."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_work_goes_on_while_somebody_waits() -> None:
    with stopped_when(lambda: False, every=0.001):
        time.sleep(0.05)


def test_work_that_nobody_waits_for_is_stopped_though_it_takes_errors_for_its_own() -> None:
    with pytest.raises(Cancelled), stopped_when(lambda: True, every=0.001):
        while True:
            try:
                time.sleep(0.001)
            except Exception:
                continue


def test_nothing_is_raised_once_the_work_has_ended() -> None:
    rng, n_stopped = random.Random(0), 0
    for _ in range(500):
        try:
            with stopped_when(lambda: True, every=0.0001):
                end = time.perf_counter() + rng.uniform(0, 0.0004)
                while time.perf_counter() < end:
                    pass
        except Cancelled:
            n_stopped += 1
        # What was still to come would come here, out of any `try`.
        for _ in range(200):
            str(n_stopped)
    assert n_stopped > 0


def test_a_worker_names_the_gpus_that_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert facts()["gpus"] == ["3", "1"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert facts()["gpus"] == ["0", "1"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert facts()["gpus"] == []
