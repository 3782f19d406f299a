"""What a process holds, measured in one of its own."""

import os

import numpy as np

from taskdisc.processes import in_own_process, resident_bytes


def grown(n_bytes: int) -> tuple[int, int]:
    """This process, and by how much it has grown at its peak by an array that is gone again."""
    before, _ = resident_bytes()
    np.ones(n_bytes, dtype=np.uint8)
    return os.getpid(), resident_bytes()[1] - before


def test_a_process_of_its_own_holds_nothing_of_this_one() -> None:
    here = np.ones(60_000_000, dtype=np.uint8)
    number, growth = in_own_process(grown, 30_000_000)
    assert number != os.getpid()
    assert 29e6 < growth < here.nbytes
