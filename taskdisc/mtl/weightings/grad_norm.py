"""Gradient normalisation."""

import torch
from torch import Tensor

from taskdisc.mtl.weightings.base import Setup, Step, Update, Weighting, of_total, ratio

LEAST = 1e-3
"""Weights are kept above it before they are brought to their sum again."""


class GradNorm(Weighting):
    """Σ w L, with w learned so that tasks that lag behind have larger gradients.

    Chen et al. 2018, algorithm 1: with norms G_i = w_i‖g_i‖, their mean Ḡ and training rates
    r_i = (L_i / L_i(0)) / mean, w follows the gradient of Σ |G_i − Ḡ r_i^α|, targets constant, and
    is then brought to Σ w = n_tasks. A step uses the weights from before it.

    The paper takes the gradients of the last shared layer; here they are those that the trainer
    gives. The paper has no lower bound of the weights, which may turn negative there.

    Args:
        setup: For what it is made.
        alpha: α, how strongly rates are made equal.
        lr: Step size of the weights.
    """

    weights: Tensor
    first_losses: Tensor

    def __init__(self, setup: Setup, alpha: float, lr: float) -> None:
        super().__init__(setup)
        self.alpha = alpha
        self.lr = lr
        self.register_buffer("weights", torch.ones(setup.n_tasks))
        self.register_buffer("first_losses", torch.zeros(0))

    def update(self, step: Step) -> Update:
        losses = step.losses.detach()
        if not len(self.first_losses):
            self.first_losses = losses.clone()
        weights = self.weights.clone()
        norms = step.gramian.diagonal().clamp(min=0).sqrt()
        progress = ratio(losses, self.first_losses)
        rates = ratio(progress, progress.mean())
        scaled = weights * norms
        targets = scaled.mean() * rates**self.alpha
        moved = weights - self.lr * torch.sign(scaled - targets) * norms
        moved = moved.clamp(min=LEAST)
        self.weights = (moved * (self.n_tasks / moved.sum())).to(self.weights)
        return of_total((weights * step.losses).sum(), step.losses)
