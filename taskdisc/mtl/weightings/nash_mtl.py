"""Nash bargaining."""

from typing import Any

import torch
from torchjd.aggregation import NashMTL

from taskdisc.mtl.weightings.adapters import Adapted
from taskdisc.mtl.weightings.base import Setup, Step, Update, of_weights


class NashBargaining(Adapted):
    """Weights α with G α = 1 / α, G brought to norm 1. Navon et al. 2022, algorithm 1."""

    def __init__(self, setup: Setup, **settings: Any) -> None:
        super().__init__(setup, NashMTL(setup.n_tasks, **settings).weighting)

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        return of_weights(self.ask(step.jacobian))
