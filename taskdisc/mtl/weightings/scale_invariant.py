"""The scale-invariant sum."""

import torch

from taskdisc.mtl.weightings.base import SMALLEST, Step, Update, Weighting, of_total


class ScaleInvariant(Weighting):
    """Σ log L: a loss times a constant gives the same update. A baseline of Navon et al. 2022."""

    def update(self, step: Step) -> Update:
        total = torch.log(step.losses.clamp(min=SMALLEST)).sum()
        return of_total(total, step.losses)
