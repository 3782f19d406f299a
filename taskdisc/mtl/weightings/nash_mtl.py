"""Nash bargaining."""

import warnings

import torch
from torchjd.aggregation import NashMTL

from taskdisc.mtl.weightings.adapters import Adapted
from taskdisc.mtl.weightings.base import Setup, Step, Update, of_weights


class NashBargaining(Adapted):
    """Weights α with G α = 1 / α, G brought to norm 1. Navon et al. 2022, algorithm 1.

    Where all gradients are 0, so are the weights, and the step leaves the state as it was.

    Args:
        setup: For what it is made, at least two tasks.
        max_norm: Longest direction; a longer one is brought to it. 0: of any length.
        update_weights_every: Steps for which weights are kept.
        optim_niter: Iterations of the solver.
    """

    def __init__(
        self, setup: Setup, max_norm: float, update_weights_every: int, optim_niter: int
    ) -> None:
        # Limited here, and not by torchjd, which gets gradients of unit scale.
        rule = NashMTL(setup.n_tasks, 0.0, update_weights_every, optim_niter)
        super().__init__(setup, rule.weighting)
        self.max_norm = max_norm

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        jacobian = step.jacobian
        scale = torch.linalg.vector_norm(jacobian, dim=1).mean()
        if scale == 0:  # torchjd would divide by it
            return of_weights(torch.zeros_like(step.losses))
        with warnings.catch_warnings():
            # Where the solver gives up torchjd keeps its last weights; it warns in most steps.
            warnings.simplefilter("ignore")
            weights = self.ask(jacobian / scale)
        if self.max_norm > 0:
            length = torch.linalg.vector_norm(weights @ jacobian)
            weights = weights * (self.max_norm / length.clamp(min=self.max_norm))
        return of_weights(weights)
