"""Fast adaptive multitask optimisation."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torchjd.scalarization import FAMO

from taskdisc.mtl.weightings.base import Setup, Step, Update, Weighting, check_tasks, of_total


class FastAdaptive(Weighting):
    """Weights that make all losses fall at the same rate, learned from the losses after each step.

    torchjd's FAMO keeps the logits as a parameter with an Adam of its own. They are no parameters
    of this module, so that the trainer's optimiser leaves them alone.
    """

    _rule: FAMO

    def __init__(
        self, setup: Setup, min_losses: tuple[float, ...], lr: float, weight_decay: float
    ) -> None:
        super().__init__(setup)
        rule = FAMO(setup.n_tasks, torch.tensor(min_losses), lr, weight_decay)
        object.__setattr__(self, "_rule", rule)
        self._restored: dict[str, Any] | None = None

    def get_extra_state(self) -> dict[str, Any]:
        if self._restored is not None:
            return self._restored
        optimizer = self._rule._optimizer
        return {
            "n_tasks": self.n_tasks,
            "rule": {name: value.clone() for name, value in self._rule.state_dict().items()},
            "losses": self._rule._prev_losses,
            "optimizer": None if optimizer is None else deepcopy(optimizer.state_dict()),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        check_tasks(state["n_tasks"], self.n_tasks)
        self._restored = state

    @property
    def task_weights(self) -> Tensor:
        """softmax of the logits, [n_tasks]."""
        return self._rule._w.detach().softmax(dim=0)

    def update(self, step: Step) -> Update:
        self._settle(step.losses)
        return of_total(self._rule(step.losses), step.losses)

    def after_step(self, losses: Tensor) -> None:
        self._settle(losses)
        self._rule.update(losses)

    def _settle(self, losses: Tensor) -> None:
        """Follow the losses to their device, and take up a restored state there."""
        self._rule.to(losses.device)
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        if state["optimizer"] is not None:
            # The rule makes its optimiser at its first update.
            self._rule(losses.detach())
            self._rule.update(losses)
            if self._rule._optimizer is not None:
                self._rule._optimizer.load_state_dict(state["optimizer"])
        self._rule.load_state_dict(state["rule"])
        before = state["losses"]
        self._rule._prev_losses = None if before is None else before.to(losses.device)
