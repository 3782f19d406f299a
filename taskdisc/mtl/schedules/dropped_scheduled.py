"""Dropped-Scheduled Task."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskdisc.errors import SettingError
from taskdisc.mtl.schedules.base import Schedule, Setup

SMALLEST = 1e-8
"""Divisors below it count as it, so that a task whose loss reaches 0 stays finite."""


class DroppedScheduled(Schedule):
    """P(k,t) = Σ λ_i P_i, a mixture of five metrics of each task t, each in [0, 1].

    Malhotra, Vatsa and Singh 2022 (DST). With the depth d_t of a task's head, its labelled samples
    c_t and its loss V(k,t):

    - depth: d_t / max d
    - samples: c_t / max c
    - incompleteness: min(1, I / mean I), I(k,t) = V(k,t) / V(1,t)
    - stagnancy: min(1, mean R′ / R′), R′ the magnitude of
      (V(k,t) − V(k−1,t)) / (V(k−1,t) · incompleteness); 1 for k = 1
    - regulariser: 1, so that P ≥ its λ and no task is off for good

    The paper's own λ were not found; they are equal by default.

    Which tasks an epoch trains is drawn before its losses are known, so it goes by the metrics of
    the epoch before; in the first epoch the last three are 1. Where the formulas say nothing:

    - A dropped task keeps its last loss, so that its R′ is 0 and its stagnancy 1. Of a task that
      was never active, I is 1 and R′ is 0; its first known loss is its V(1,t).
    - I is 1 where V(1,t) = 0, as no progress can be told from there.
    - Where all are finished, mean I = 0, incompleteness is 1; where R′ = 0, stagnancy is 1.
    - A loss that is not finite counts as none.

    Args:
        setup: For what it is made.
        depth: λ of the depth of heads; this one and the next four are at least 0 and add up to 1.
        samples: λ of the number of labelled samples.
        incompleteness: λ of incompleteness.
        stagnancy: λ of stagnancy.
        regulariser: λ of the regulariser.
        keep_main: Whether the main task is always active.
    """

    def __init__(
        self,
        setup: Setup,
        depth: float,
        samples: float,
        incompleteness: float,
        stagnancy: float,
        regulariser: float,
        keep_main: bool,
    ) -> None:
        super().__init__(setup, keep_main)
        self.shares = np.array([depth, samples, incompleteness, stagnancy, regulariser])
        self._depth = np.array(setup.head_depths) / max(setup.head_depths)
        self._samples = np.array(setup.n_labelled) / max(setup.n_labelled)
        unknown = np.full(setup.n_tasks, np.nan)
        self._losses = {"first": unknown, "before": unknown, "last": unknown}

    def metrics(self) -> NDArray[np.float64]:
        """The five metrics after the last epoch heard of, [5, n_tasks], in the order above."""
        unfinished = self._incompleteness()
        ones = np.ones(self.n_tasks)
        return np.stack([self._depth, self._samples, unfinished, self._stagnancy(unfinished), ones])

    def rates(self, epoch: int) -> NDArray[np.float64]:
        # Shares add up to 1 but for rounding.
        return np.minimum(1.0, self.shares @ self.metrics())

    def after_epoch(self, epoch: int, losses: Sequence[float] | NDArray[np.float64]) -> None:
        heard = np.asarray(losses, dtype=np.float64)
        first, before = self._losses["first"], self._losses["last"]
        last = np.where(np.isfinite(heard), heard, before)
        self._losses = {
            "first": np.where(np.isnan(first), last, first),
            "before": before,
            "last": last,
        }

    def state_dict(self) -> dict[str, Any]:
        return {name: losses.tolist() for name, losses in self._losses.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        n_saved = len(state["last"])
        if n_saved != self.n_tasks:
            raise SettingError(
                f"`n_tasks` must be {n_saved}, as in the saved state, got {self.n_tasks}."
            )
        self._losses = {name: np.array(state[name], dtype=np.float64) for name in self._losses}

    def _incompleteness(self) -> NDArray[np.float64]:
        """min(1, I / mean I), [n_tasks]."""
        first, last = self._losses["first"], self._losses["last"]
        told = first > 0  # not of NaN
        left = np.where(told, last, 1.0) / np.where(told, first, 1.0)
        mean = left.mean()
        return np.clip(left / mean, 0.0, 1.0) if mean > 0 else np.ones(self.n_tasks)

    def _stagnancy(self, unfinished: NDArray[np.float64]) -> NDArray[np.float64]:
        """min(1, mean R′ / R′), [n_tasks]."""
        before, last = self._losses["before"], self._losses["last"]
        known = ~np.isnan(before)
        change = np.where(known, np.abs(last - before), 0.0)
        magnitude = change / np.maximum(np.where(known, before, 0.0) * unfinished, SMALLEST)
        moves = magnitude > 0
        fraction = magnitude.mean() / np.where(moves, magnitude, 1.0)
        return np.where(moves, np.minimum(1.0, fraction), 1.0)
