"""Experts of each task's own beside shared ones."""

from torch import Tensor

from taskdisc.mtl.architectures.base import MultiTaskNetwork, Plan, linear_heads
from taskdisc.mtl.architectures.experts import Level, owners_of


class CGC(MultiTaskNetwork):
    """Backbones as experts, some of a task and some of all; a gate mixes those that a task sees.

    Tang et al. 2020 (customised gate control): the gate of task k is a softmax over
    its own experts and the shared ones, linear in the image. Deviation: it sees an image as 4 × 4
    means per channel.

    Args:
        plan: For what it is made.
        n_own: Experts of each task.
        n_shared: Experts of all tasks.
    """

    def __init__(self, plan: Plan, n_own: int, n_shared: int) -> None:
        super().__init__()
        owners = owners_of(plan.n_tasks, n_own, n_shared)
        experts = [plan.backbone() for _ in owners]
        self.level = Level(experts, owners, plan.n_tasks, last=True)
        self.heads = linear_heads(experts[0].n_features, plan.n_outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.level([images] * (len(self.heads) + 1))
        return [head(x) for head, x in zip(self.heads, features, strict=True)]
