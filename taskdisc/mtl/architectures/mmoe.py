"""Experts for all tasks, and a gate for each."""

from torch import Tensor

from taskdisc.mtl.architectures.base import MultiTaskNetwork, Plan, linear_heads
from taskdisc.mtl.architectures.experts import Level, owners_of


class MMoE(MultiTaskNetwork):
    """Several backbones as experts; each task's gate mixes their features for each image.

    Ma et al. 2018: f_k(x) = Σ_i g_k(x)_i f_i(x) with g_k(x) = softmax(W_k x).
    Deviation: W_k sees an image as 4 × 4 means per channel.

    Args:
        plan: For what it is made.
        n_experts: How many; with one it is hard sharing.
    """

    def __init__(self, plan: Plan, n_experts: int) -> None:
        super().__init__()
        experts = [plan.backbone() for _ in range(n_experts)]
        self.level = Level(experts, owners_of(plan.n_tasks, 0, n_experts), plan.n_tasks, last=True)
        self.heads = linear_heads(experts[0].n_features, plan.n_outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.level([images] * (len(self.heads) + 1))
        return [head(x) for head, x in zip(self.heads, features, strict=True)]
