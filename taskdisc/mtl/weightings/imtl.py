"""Impartial multi-task learning: balanced losses, and both balanced losses and gradients."""

import torch
from torchjd.aggregation import IMTLGWeighting
from torchjd.scalarization import IMTLL

from taskdisc.mtl.weightings.adapters import of_unit_scale
from taskdisc.mtl.weightings.base import Setup, Step, Update, Weighting, of_total


class BalancedLosses(Weighting):
    """Σ exp(s)L − s with learned s, from 0. Liu et al. 2021, IMTL-L."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.scales = IMTLL(setup.n_tasks)

    def update(self, step: Step) -> Update:
        return of_total(self.scales(step.losses), step.losses)


class BalancedBoth(Weighting):
    """IMTL-L for heads and scales s; the shared parameters follow IMTL-G on its scaled losses.

    Liu et al. 2021: gradients of exp(s)L have the Gramian D G D, D = diag(exp(s)).
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.scales = IMTLL(setup.n_tasks)
        self.balance = IMTLGWeighting()

    def update(self, step: Step) -> Update:
        total = self.scales(step.losses)
        with torch.no_grad():
            factors = self.scales.log_scale.exp().to(step.gramian)
            scaled = of_unit_scale(step.gramian * torch.outer(factors, factors))
            weights = factors * self.balance(scaled)
        return Update(total=total, weights=weights, shown=weights)
