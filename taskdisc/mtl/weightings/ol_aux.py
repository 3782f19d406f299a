"""Online learning of auxiliary weights."""

import torch
from torch import Tensor

from taskdisc.mtl.weightings.base import SMALLEST, MainWeighting, Setup, Step, Update, of_total


class OnlineAuxiliaries(MainWeighting):
    """L_main + Σ w_i log L_i, with weights that grow while their gradients agree with the main one.

    Lin et al. 2019: every N steps w_i ← w_i + βα Σ ∇L_main·∇ log L_i over these steps. Weights are
    not bounded. A step uses the weights from before it.

    Args:
        setup: For what it is made.
        rate: βα, the product of the weights' and the network's step size.
        horizon: N.
        log: Whether auxiliaries enter by the logarithm of their losses, as in the paper.
    """

    weights: Tensor
    dots: Tensor
    n_steps: Tensor

    def __init__(self, setup: Setup, rate: float, horizon: int, log: bool) -> None:
        super().__init__(setup)
        self.rate = rate
        self.horizon = horizon
        self.log = log
        self.register_buffer("weights", torch.ones(setup.n_tasks))
        self.register_buffer("dots", torch.zeros(setup.n_tasks))
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.int64))

    def update(self, step: Step) -> Update:
        is_main = torch.arange(self.n_tasks, device=step.losses.device) == self.main
        losses = step.losses.clamp(min=SMALLEST)
        terms = torch.where(is_main, step.losses, torch.log(losses)) if self.log else step.losses
        made = of_total((self.weights.clone() * terms).sum(), step.losses)
        with torch.no_grad():
            dots = step.gramian[self.main] / (losses.detach() if self.log else 1)
            self.dots += torch.where(is_main, 0, dots)
            self.n_steps += 1
            if self.n_steps % self.horizon == 0:
                self.weights += self.rate * self.dots
                self.dots.zero_()
        return made
