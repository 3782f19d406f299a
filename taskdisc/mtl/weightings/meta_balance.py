"""Auxiliary gradients at the magnitude of the main one."""

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


class MetaBalance(MainWeighting):
    """w_i = r m_main / m_i + 1 − r, with moving means m of the gradients' norms.

    He et al. 2022, there per parameter tensor, here over all shared ones.

    Args:
        setup: For what it is made.
        relax: r; 1 brings auxiliaries to the main gradient's norm, 0 is the plain sum.
        beta: Share of the old mean in the new one, which starts at 0.
        strategy: Which auxiliaries: those that are `larger` than the main gradient, `smaller`
            ones, or `both`.
    """

    norms: Tensor

    def __init__(self, setup: Setup, relax: float, beta: float, strategy: str) -> None:
        super().__init__(setup)
        self.relax = relax
        self.beta = beta
        self.strategy = strategy
        self.register_buffer("norms", torch.zeros(setup.n_tasks))

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        norms = step.gramian.diagonal().clamp(min=0).sqrt()
        self.norms = self.beta * self.norms + (1 - self.beta) * norms
        main = self.norms[self.main]
        moved = {
            "larger": self.norms > main,
            "smaller": self.norms < main,
            "both": self.norms != main,
        }[self.strategy]
        weights = self.relax * ratio(main, self.norms) + (1 - self.relax)
        return of_weights(torch.where(moved, weights, 1.0))
