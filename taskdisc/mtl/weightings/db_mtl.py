"""Dual balancing."""

import torch
from torch import Tensor

from taskdisc.mtl.weightings.base import SMALLEST, Setup, Step, Update, Weighting, ratio


class DualBalancing(Weighting):
    """Gradients of log L, smoothed over steps, all brought to the length of the longest, summed.

    Lin et al. 2023: ĝ ← β_k ĝ + (1 − β_k) ∇ log L, β_k = β / k^σ at step k, from 0,
    so that the first step is (1 − β) times as long. The heads follow Σ log L. ĝ starts anew where
    other parameters become shared.

    Args:
        setup: For what it is made.
        beta: β.
        decay: σ.
    """

    tracked: Tensor
    n_steps: Tensor

    def __init__(self, setup: Setup, beta: float, decay: float) -> None:
        super().__init__(setup)
        self.beta = beta
        self.decay = decay
        self.register_buffer("tracked", torch.zeros(0))
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.int64))

    def update(self, step: Step) -> Update:
        losses = step.losses.clamp(min=SMALLEST)
        with torch.no_grad():
            self.n_steps += 1
            beta = self.beta / self.n_steps**self.decay
            gradients = step.jacobian / losses.detach()[:, None]
            same = self.tracked.shape == gradients.shape
            old = self.tracked if same else torch.zeros_like(gradients)
            self.tracked = beta * old + (1 - beta) * gradients
            norms = torch.linalg.vector_norm(self.tracked, dim=1)
            direction = ratio(norms.max(), norms) @ self.tracked
        return Update(total=torch.log(losses).sum(), direction=direction)
