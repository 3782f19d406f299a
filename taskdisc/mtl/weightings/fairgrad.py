"""Fair sharing of progress."""

import torch

from taskdisc.mtl.weightings.adapters import FromGramian, of_unit_scale
from taskdisc.mtl.weightings.base import Setup, Step, Update, of_weights


class FairSharing(FromGramian):
    """Weights w with G w = w^(−1/α). Ban and Ji 2024, eq. 4.

    torchjd's solver starts at equal weights and stops early where the solution is far. Hence it
    gets G / t, with t the mean of G's diagonal, and its answer is multiplied by t^(−α/(1+α)), which
    solves the same equation.
    """

    def __init__(self, setup: Setup, alpha: float) -> None:
        super().__init__(setup, "aggregation:FairGradWeighting", alpha=alpha)
        self.alpha = alpha

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        scale = step.gramian.diagonal().mean()
        factor = torch.where(scale > 0, scale ** (-self.alpha / (1 + self.alpha)), 1.0)
        return of_weights(factor * self.ask(of_unit_scale(step.gramian)))
