"""Tasks dropped at random."""

import numpy as np
from numpy.typing import NDArray

from taskdisc.mtl.schedules.base import Schedule, Setup


class RandomDrop(Schedule):
    """Every task is active with the same probability in every epoch: a baseline for other rules.

    Args:
        setup: For what it is made.
        p: This probability, in (0, 1].
        keep_main: Whether the main task is always active.
    """

    def __init__(self, setup: Setup, p: float, keep_main: bool) -> None:
        super().__init__(setup, keep_main)
        self.p = p

    def rates(self, epoch: int) -> NDArray[np.float64]:
        return np.full(self.n_tasks, self.p)
