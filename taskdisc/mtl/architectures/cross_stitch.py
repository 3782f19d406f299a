"""Cross-stitch units between networks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from taskdisc.mtl.architectures.base import (
    MultiTaskNetwork,
    Plan,
    Shown,
    linear_heads,
    rows_of,
    stages_of,
)


class CrossStitch(MultiTaskNetwork):
    """A backbone per task; after every stage each task goes on with a mixture of all features.

    Misra et al. 2016, equation 1, for any number of tasks: x_i ← Σ_j α_ij x_j, with a learned unit
    α [n_tasks, n_tasks] per stage.

    Args:
        plan: For what it is made.
        self_weight: α_ii at the start; the rest to 1 is shared equally by the others.
    """

    def __init__(self, plan: Plan, self_weight: float) -> None:
        super().__init__()
        backbones = [plan.backbone() for _ in plan.n_outputs]
        self.backbones = nn.ModuleList(backbones)
        self.heads = linear_heads(backbones[0].n_features, plan.n_outputs)
        n = plan.n_tasks
        unit = torch.full((n, n), (1 - self_weight) / (n - 1)).fill_diagonal_(self_weight)
        self.units = nn.ParameterList(nn.Parameter(unit.clone()) for _ in backbones[0].stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        features: list[Tensor] = [images] * len(self.heads)
        for stages, unit in zip(stages_of(self.backbones), self.units, strict=True):
            own = [stage(x) for stage, x in zip(stages, features, strict=True)]
            features = list(torch.einsum("ij,j...->i...", unit, torch.stack(own)))
        return [head(x) for head, x in zip(self.heads, features, strict=True)]

    def shown(self, names: Sequence[str]) -> list[Shown]:
        return [
            Shown(f"Cross-stitch unit after stage {stage + 1}", matrix=rows_of(unit))
            for stage, unit in enumerate(self.units)
        ]
