"""One backbone for all tasks."""

from torch import Tensor, nn

from taskdisc.mtl.architectures.base import MultiTaskNetwork, Plan, linear_heads


class HardSharing(MultiTaskNetwork):
    """One backbone for all tasks, and a linear head for each.

    Caruana 1997, "Multitask Learning".

    Args:
        plan: For what it is made.
        fully_connected: Whether the stages after the convolutions are `shared` too, or each task's
            `own`, where the backbone has such stages.
    """

    def __init__(self, plan: Plan, fully_connected: str) -> None:
        super().__init__()
        first = plan.backbone()
        n = first.n_convolutional if fully_connected == "own" else len(first.stages)
        self.shared = first.part(0, n)
        n_copies = 1 if n == len(first.stages) else plan.n_tasks
        others = [plan.backbone() for _ in range(n_copies - 1)]
        self.own = nn.ModuleList(backbone.part(n) for backbone in (first, *others))
        self.heads = linear_heads(first.n_features, plan.n_outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        shared = self.shared(images)
        features = [own(shared) for own in self.own]
        features *= len(self.heads) // len(features)
        return [head(x) for head, x in zip(self.heads, features, strict=True)]
