"""Priority-constrained descent."""

import torch

from taskdisc.mtl.weightings.adapters import FromGramian
from taskdisc.mtl.weightings.base import Setup, Step, Update, given, of_weights


class PriorityConstrained(FromGramian):
    """As close to the main gradient as possible, with some progress on each auxiliary."""

    def __init__(self, setup: Setup, tau: float, beta: float, eps: float) -> None:
        super().__init__(setup, "aggregation:PCDWeighting", tau=tau, beta=beta, eps=eps)
        main = given(setup.main, "main")
        # torchjd takes the first task as the main one.
        self._order = [main, *(i for i in range(setup.n_tasks) if i != main)]

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        gramian = step.gramian
        ordered = self.ask(gramian[self._order][:, self._order])
        weights = torch.empty_like(ordered)
        weights[self._order] = ordered
        return of_weights(weights)
