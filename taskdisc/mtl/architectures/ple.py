"""Experts of each task's own beside shared ones, level by level."""

from torch import Tensor, nn

from taskdisc.mtl.architectures.base import MultiTaskNetwork, Plan, linear_heads
from taskdisc.mtl.architectures.experts import Level, owners_of


class PLE(MultiTaskNetwork):
    """Every stage of the backbone is a level of experts, mixed by gates before the next.

    Tang et al. 2020 (progressive layered extraction): the gate of task k mixes its own
    experts and the shared ones, that of the shared experts mixes all; each is a softmax, linear in
    what its experts get. The last level has gates of tasks only. Deviation: gates see maps as 4 × 4
    means per channel.

    Args:
        plan: For what it is made.
        n_own: Experts of each task on every level.
        n_shared: Experts of all tasks on every level.
    """

    def __init__(self, plan: Plan, n_own: int, n_shared: int) -> None:
        super().__init__()
        owners = owners_of(plan.n_tasks, n_own, n_shared)
        backbones = [plan.backbone() for _ in owners]
        n_stages = len(backbones[0].stages)
        self.levels = nn.ModuleList(
            Level(
                [backbone.part(stage, stage + 1) for backbone in backbones],
                owners,
                plan.n_tasks,
                last=stage == n_stages - 1,
            )
            for stage in range(n_stages)
        )
        self.heads = linear_heads(backbones[0].n_features, plan.n_outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images] * (len(self.heads) + 1)
        for level in self.levels:
            features = level(features)
        return [head(x) for head, x in zip(self.heads, features, strict=True)]
