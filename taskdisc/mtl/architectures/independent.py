"""A network of its own for each task."""

from torch import Tensor, nn

from taskdisc.mtl.architectures.base import MultiTaskNetwork, Plan, linear_heads


class Independent(MultiTaskNetwork):
    """A backbone and a head for each task: nothing is shared, as in single-task training."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        backbones = [plan.backbone() for _ in plan.n_outputs]
        self.backbones = nn.ModuleList(backbones)
        self.heads = linear_heads(backbones[0].n_features, plan.n_outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [
            head(backbone(images))
            for backbone, head in zip(self.backbones, self.heads, strict=True)
        ]
