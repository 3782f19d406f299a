"""Auxiliary gradients without what opposes the main one, or without all that is along it."""

import torch
from torch import Tensor

from taskdisc.mtl.weightings.base import (
    MainWeighting,
    Setup,
    Step,
    Update,
    of_weights,
    ratio,
)


class Projection(MainWeighting):
    """g_main + λ Σ (g_aux − min(0, g_aux·ĝ) ĝ), ĝ the unit vector of the smoothed main gradient.

    Tran-Thien 2020, algorithm 1: what opposes the main gradient is taken out of each auxiliary.
    The variant that does so per parameter tensor is left out. The mean starts anew where other
    parameters become shared.

    Args:
        setup: For what it is made.
        weight: λ.
        smoothing: Share of the newest main gradient in the moving mean that gives ĝ; 1: no mean.
    """

    mean: Tensor

    def __init__(self, setup: Setup, weight: float, smoothing: float) -> None:
        super().__init__(setup)
        self.weight = weight
        self.smoothing = smoothing
        self.register_buffer("mean", torch.zeros(0))

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        jacobian = step.jacobian
        main = jacobian[self.main]
        if self.mean.shape == main.shape:
            self.mean = (1 - self.smoothing) * self.mean + self.smoothing * main
        else:
            self.mean = main.clone()
        unit = ratio(self.mean, torch.linalg.vector_norm(self.mean))
        against = (jacobian @ unit).clamp(max=0)
        against[self.main] = 0
        auxiliary = jacobian.sum(dim=0) - main - against.sum() * unit
        return Update(direction=main + self.weight * auxiliary)


class Orthogonal(MainWeighting):
    """g_main + λ Σ (g_aux − (g_aux·ĝ_main) ĝ_main): auxiliaries act across the main gradient only.

    Args:
        setup: For what it is made.
        weight: λ.
    """

    def __init__(self, setup: Setup, weight: float) -> None:
        super().__init__(setup)
        self.weight = weight

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        gramian = step.gramian
        along = ratio(gramian[self.main], gramian[self.main, self.main])
        weights = torch.full_like(along, self.weight)
        weights[self.main] = 1 - self.weight * (along.sum() - along[self.main])
        return of_weights(weights)
