"""Smoothed weights of another weighting."""

from pkgutil import resolve_name

import torch
from torchjd.aggregation import CRMOGMWeighting

from taskdisc.mtl.weightings.adapters import Adapted, of_unit_scale
from taskdisc.mtl.weightings.base import Setup, Step, Update, of_weights


class SmoothedWeights(Adapted):
    """λ ← αλ + (1 − α)λ̂, with λ̂ the weights that another one gives. Zhou et al. 2022.

    Args:
        setup: For what it is made.
        of: The other one, a stateless class of torchjd with its defaults.
        alpha: α.
    """

    def __init__(self, setup: Setup, of: str, alpha: float) -> None:
        inner = resolve_name(f"torchjd.aggregation:{of}Weighting")()
        super().__init__(setup, CRMOGMWeighting(inner, alpha=alpha))

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        return of_weights(self.ask(of_unit_scale(step.gramian)))
