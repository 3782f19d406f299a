"""Multi-objective gradient correction."""

import torch
from torch import Tensor

from taskdisc.mtl.weightings.base import Setup, Step, Update, Weighting, ratio


class CorrectedGradients(Weighting):
    """λ @ y with tracked gradients y and weights λ that are moved towards their least norm.

    Fernando et al. 2023: y ← y − β(y − g), then λ ← softmax(λ − γ(yyᵀ + ρI)λ), from
    y = 0 and equal λ. As in LibMTL, λ goes through a softmax where the paper projects onto the
    simplex, and each g is brought to the length of its loss. y starts anew where other
    parameters become shared.

    Args:
        setup: For what it is made.
        beta: β.
        gamma: γ.
        rho: ρ.
    """

    tracked: Tensor
    weights: Tensor

    def __init__(self, setup: Setup, beta: float, gamma: float, rho: float) -> None:
        super().__init__(setup)
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.register_buffer("tracked", torch.zeros(0))
        self.register_buffer("weights", torch.full((setup.n_tasks,), 1 / setup.n_tasks))

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        jacobian = step.jacobian
        norms = torch.linalg.vector_norm(jacobian, dim=1)
        scaled = jacobian * ratio(step.losses.detach(), norms)[:, None]
        y = self.tracked if self.tracked.shape == scaled.shape else torch.zeros_like(scaled)
        y = y - self.beta * (y - scaled)
        slope = y @ (self.weights @ y) + self.rho * self.weights
        self.tracked = y
        self.weights = torch.softmax(self.weights - self.gamma * slope, dim=0)
        return Update(direction=self.weights @ y, shown=self.weights.clone())
