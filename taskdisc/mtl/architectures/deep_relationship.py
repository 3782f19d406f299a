"""Layers of each task's own under a common prior."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from taskdisc.mtl.architectures.base import (
    MultiTaskNetwork,
    Plan,
    Shown,
    linear_heads,
    rows_of,
)

RIDGE = 0.01
"""Of the mean variance, added to the diagonal of a covariance, so that it has an inverse."""


class DeepRelationship(MultiTaskNetwork):
    """Shared convolutions; fully connected layers of each task's own, tied by a prior.

    Long et al. 2017: the weights W [n_tasks, n] of a layer, one row per task, follow a normal
    distribution with a covariance Ω [n_tasks, n_tasks] between tasks. The penalty is
    strength · Σ tr(Wᵀ Ω⁻¹ W) over layers. At the end of every epoch Ω becomes its estimate W Wᵀ / n
    with a ridge, scaled to the trace n_tasks, so that the strength means the same throughout; it
    starts as the identity, where the penalty is the plain squared norm.

    The prior lies on the weights, not the biases, of the fully connected stages that are trained,
    and on the heads where all have as many outputs: heads of different widths cannot share it.
    Where neither is so, as with a ResNet and different heads, it is plain hard sharing.

    Deviation: the paper also estimates covariances of inputs and outputs; here they are identities.

    Args:
        plan: For what it is made.
        strength: Of the penalty, at least 0.
    """

    covariances: Tensor

    def __init__(self, plan: Plan, strength: float) -> None:
        super().__init__()
        self.strength = strength
        backbones = [plan.backbone() for _ in plan.n_outputs]
        n = backbones[0].n_convolutional
        self.convolutions = backbones[0].part(0, n)
        self.tops = nn.ModuleList(backbone.part(n) for backbone in backbones)
        self.heads = linear_heads(backbones[0].n_features, plan.n_outputs)
        n_layers = len(self.layers())
        self.register_buffer("covariances", torch.eye(plan.n_tasks).repeat(n_layers, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.convolutions(images)
        return [head(top(features)) for head, top in zip(self.heads, self.tops, strict=True)]

    def layers(self) -> dict[str, Tensor]:
        """The weights [n_tasks, n] under the prior, by the name of their layer."""
        tops = [
            [p.flatten() for p in top.parameters() if p.dim() > 1 and p.requires_grad]
            for top in self.tops
        ]
        found = {
            f"fully connected layer {layer}": torch.stack(weights)
            for layer, weights in enumerate(zip(*tops, strict=True))
        }
        heads = [cast("nn.Linear", head).weight.flatten() for head in self.heads]
        if len({len(weights) for weights in heads}) == 1:
            found["heads"] = torch.stack(heads)
        return found

    def penalty(self) -> Tensor | None:
        """strength · Σ tr(Wᵀ Ω⁻¹ W), or None where no layer is under the prior."""
        layers = self.layers()
        if not layers:
            return None
        # Inverses of nearly singular matrices need full precision; inv_ex does not wait for the
        # device to check them.
        with torch.autocast(self.covariances.device.type, enabled=False):
            inverses = torch.linalg.inv_ex(self.covariances).inverse
            terms = [
                ((inverse @ weights) * weights).sum()
                for inverse, weights in zip(inverses, layers.values(), strict=True)
            ]
            return self.strength * torch.stack(terms).sum()

    @torch.no_grad()
    def after_epoch(self, correct: Tensor) -> bool:
        """Estimates the covariances anew; what tasks share stays."""
        for place, weights in enumerate(self.layers().values()):
            estimate = weights @ weights.T / weights.shape[1]
            identity = torch.eye(len(weights)).to(estimate)
            estimate += RIDGE * estimate.diagonal().mean() * identity
            self.covariances[place] = estimate / estimate.diagonal().mean()
        return False

    def shown(self, names: Sequence[str]) -> list[Shown]:
        return [
            Shown(f"Covariance of tasks: {name}", matrix=rows_of(covariance))
            for name, covariance in zip(self.layers(), self.covariances, strict=True)
        ]
