"""Weights that are learned on validation batches."""

import torch
from torch import Tensor
from torch.optim.adam import adam

from taskdisc.mtl.weightings.base import (
    MainWeighting,
    Setup,
    Step,
    Update,
    given,
    of_total,
)


class AutoLambda(MainWeighting):
    """Σ λ L, with λ moved so that a step with it lowers the main task's validation loss.

    Liu et al. 2022: after a trial step θ′ = θ − α Σ λ ∇L the derivative of the validation
    loss by λ_i is −α ∇L_main^val(θ′)·∇L_i(θ). Where the gradients are at hand it is this product,
    which the paper approximates by finite differences. Adam follows it before each step. λ is not
    bounded below.

    Args:
        setup: For what it is made.
        start: λ at the start.
        lr: Adam's step size.
    """

    weights: Tensor
    mean: Tensor
    mean_square: Tensor
    n_steps: Tensor

    def __init__(self, setup: Setup, start: float, lr: float) -> None:
        super().__init__(setup)
        self.lr = lr
        self.register_buffer("weights", torch.full((setup.n_tasks,), start))
        self.register_buffer("mean", torch.zeros(setup.n_tasks))
        self.register_buffer("mean_square", torch.zeros(setup.n_tasks))
        self.register_buffer("n_steps", torch.zeros(()))

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        slope = self.slope_of(step)
        adam(
            [self.weights],
            [slope.to(self.weights)],
            [self.mean],
            [self.mean_square],
            [],
            [self.n_steps],
            foreach=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.lr,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        with torch.enable_grad():
            return of_total((self.weights.clone() * step.losses).sum(), step.losses)

    def slope_of(self, step: Step) -> Tensor:
        """The derivative of the main task's validation loss by λ, [n_tasks]."""
        ahead = given(step.look_ahead, "look_ahead")
        return -ahead.lr * (step.jacobian @ ahead.gradient(self.weights.clone()))
