"""Every task in every epoch."""

import numpy as np
from numpy.typing import NDArray

from taskdisc.mtl.schedules.base import Schedule


class AllTasks(Schedule):
    """Plain multi-task training: P = 1."""

    def rates(self, epoch: int) -> NDArray[np.float64]:
        return np.ones(self.n_tasks)
