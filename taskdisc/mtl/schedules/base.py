"""What a schedule is: probabilities of the tasks in an epoch, and a draw from them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Setup:
    """For what a schedule is made.

    Attributes:
        n_tasks: Number of tasks, at least 1.
        head_depths: Layers of each task's head.
        n_labelled: Training images with a label, of each task.
        main: Which task is the main one, from 0.
        seed: From which all draws follow.
    """

    n_tasks: int
    head_depths: tuple[float, ...]
    n_labelled: tuple[float, ...]
    main: int | None = None
    seed: int = 0


class Schedule(ABC):
    """A rule for which tasks are trained in which epoch. Epochs count from 1.

    Args:
        setup: For what it is made.
        keep_main: Whether the main task, where there is one, is always active.
    """

    def __init__(self, setup: Setup, keep_main: bool = False) -> None:
        self.n_tasks = setup.n_tasks
        self.seed = setup.seed
        self._kept = [setup.main] if keep_main and setup.main is not None else []

    @abstractmethod
    def rates(self, epoch: int) -> NDArray[np.float64]:
        """What the rule itself gives, [n_tasks], each in [0, 1]; `probabilities` keeps the main."""

    def probabilities(self, epoch: int) -> NDArray[np.float64]:
        """With what probability each task is active in an epoch, [n_tasks], each in [0, 1].

        A rule that listens to losses knows those that `after_epoch` has brought it so far.
        """
        found = self.rates(epoch)
        found[self._kept] = 1.0
        return found

    def draw(self, epoch: int) -> NDArray[np.bool_]:
        """Which tasks are active, [n_tasks], each drawn by itself with its probability.

        The number of active ones is Σ `probabilities` in expectation, and may be 0. What is drawn
        follows from the seed, the epoch and the probabilities, whatever was drawn before.
        """
        drawn = np.random.default_rng([self.seed, epoch]).random(self.n_tasks)
        return drawn < self.probabilities(epoch)

    def active(self, epoch: int) -> NDArray[np.bool_]:
        """Which tasks to train, [n_tasks], at least one of them.

        It is `draw`, but where that dropped every task: then the task with the highest probability
        is active, of equals the first. So E[number active] = Σ P holds for `draw`, not for this.
        """
        drawn = self.draw(epoch)
        if not drawn.any():
            drawn[self.probabilities(epoch).argmax()] = True
        return drawn

    # A hook that most rules have no use for.
    def after_epoch(self, epoch: int, losses: Sequence[float] | NDArray[np.float64]) -> None:  # noqa: B027
        """Hears the tasks' mean training losses [n_tasks] of an epoch; NaN of a dropped task."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, in plain values; the seed and the settings are not among it."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take up a saved state.

        Raises:
            SettingError: it is one of another number of tasks.
        """
