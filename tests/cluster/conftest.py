"""A real scheduler and workers, as processes of this machine, for all tests of a file."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskdisc.cluster import Cluster
from taskdisc.cluster.here import ClusterHere
from taskdisc.cluster.scheduler import disconnect

TESTS = Path(__file__).resolve().parent

MOST_S = 180
"""Seconds of a test, on a machine that does much else."""


@pytest.fixture(scope="session", autouse=True)
def _importable() -> Iterator[None]:
    """Workers import these files and this taskdisc."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{TESTS.parents[1]}{os.pathsep}{TESTS}")
        yield


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterHere]:
    """A scheduler with two workers; a test that kills one starts another one before."""
    with ClusterHere(tmp_path_factory.mktemp("cluster"), n_workers=2) as started:
        yield started
        disconnect()  # a client tries again for seconds where its scheduler has gone


@pytest.fixture(scope="module")
def pool(here: ClusterHere) -> Cluster:
    """Its pool."""
    return Cluster(here.address, "cpu")


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """A test that waits for what never comes fails rather than waits."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError(f"the test took more than {MOST_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(MOST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
