"""Uncertainty weighting, in its first form and in the revised one."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchjd.scalarization import UW

from taskdisc.mtl.weightings.base import Setup, Step, Update, Weighting, of_total

FACTORS = {"regression": 1.0, "classification": 2.0}
"""By which a loss is multiplied to have one formula for both kinds."""


class Uncertainty(Weighting):
    """Σ L/(2σ²) + log σ over regressions and Σ L/σ² + log σ over classifications, σ learned.

    Kendall et al. 2018, eq. 7 and 10. log σ² starts at 0.

    Args:
        setup: For what it is made.
        kinds: Of the tasks, keys of `FACTORS`.
    """

    factors: Tensor

    def __init__(self, setup: Setup, kinds: tuple[str, ...]) -> None:
        super().__init__(setup)
        self.learned = UW(setup.n_tasks)
        factors = torch.tensor([FACTORS[kind] for kind in kinds])
        self.register_buffer("factors", factors, persistent=False)

    def update(self, step: Step) -> Update:
        return of_total(self.learned(self.factors * step.losses), step.losses)


class RevisedUncertainty(Weighting):
    """Σ L/(2σ²) + log(1 + σ²), σ learned: its regulariser is never negative.

    Liebel and Körner 2018, for all kinds of tasks. log σ² starts at 0.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.log_var = nn.Parameter(torch.zeros(setup.n_tasks))

    def update(self, step: Step) -> Update:
        terms = step.losses * torch.exp(-self.log_var) / 2 + softplus(self.log_var)
        return of_total(terms.sum(), step.losses)
