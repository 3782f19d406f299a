"""Dynamic weight average."""

from torch import Tensor

from taskdisc.mtl.weightings.adapters import FromPositiveLosses
from taskdisc.mtl.weightings.base import Setup


class DynamicWeightAverage(FromPositiveLosses):
    """Weights by how slowly the losses fell over the last two epochs; equal in the first two."""

    def __init__(self, setup: Setup, temperature: float) -> None:
        super().__init__(setup, "scalarization:DWA", temperature=temperature)

    def after_epoch(self, mean_losses: Tensor) -> None:
        # torchjd has added the losses up itself, step by step.
        self._settle(mean_losses)
        self._rule.step()
