"""One backbone for all tasks."""

from torch import Tensor

from taskdisc.mtl.architectures.base import MultiTaskNetwork, Plan, linear_heads


class HardSharing(MultiTaskNetwork):
    """One backbone for all tasks, and a linear head for each.

    Caruana 1997, "Multitask Learning".
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.backbone = plan.backbone()
        self.heads = linear_heads(self.backbone.n_features, plan.n_outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.backbone(images)
        return [head(features) for head in self.heads]
