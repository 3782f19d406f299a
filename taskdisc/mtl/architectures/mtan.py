"""A shared network with an attention of each task's own."""

import torch
from torch import Tensor, nn

from taskdisc.mtl.architectures.base import MultiTaskNetwork, Plan, linear_heads, windows
from taskdisc.mtl.backbones.base import Shape


class MTAN(MultiTaskNetwork):
    """A shared backbone; after every stage each task multiplies its features by a mask of its own.

    Liu et al. 2019, equations 1 and 2: with the shared features p of a stage and the task's masked
    features â of the stage before, the mask is a = h(g([p; f(â)])) in (0, 1) and â ← a ⊙ p. As in
    the paper, g and h are each task's own, f belongs to all tasks, and the first stage has no f.

    Deviations: the paper computes the mask from features in the middle of a block, here from those
    at the end of the stage, as stages are not opened. Fully connected stages have masks too, of
    linear layers without normalisation; f then takes the mean over pixels.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.backbone = plan.backbone()
        before: list[Shape | None] = [None, *self.backbone.shapes[1:-1]]
        self.attentions = nn.ModuleList(
            Attention(plan.n_tasks, old, new)
            for old, new in zip(before, self.backbone.shapes[1:], strict=True)
        )
        self.heads = linear_heads(self.backbone.n_features, plan.n_outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        shared = images
        masked: list[Tensor] = []
        for stage, attention in zip(self.backbone.stages, self.attentions, strict=True):
            shared = stage(shared)
            masked = attention(shared, masked)
        return [head(x) for head, x in zip(self.heads, masked, strict=True)]


class Attention(nn.Module):
    """The masks of all tasks after one stage.

    Args:
        n_tasks: How many.
        before: Of the masked features of the stage before; None for the first stage.
        shape: Of the features of this one.
    """

    def __init__(self, n_tasks: int, before: Shape | None, shape: Shape) -> None:
        super().__init__()
        self.carry = None if before is None else carry(before, shape)
        n, n_in = shape[0], shape[0] if before is None else 2 * shape[0]
        self.masks = nn.ModuleList(
            nn.Sequential(
                *pointwise(n_in, n, shape), nn.ReLU(), *pointwise(n, n, shape), nn.Sigmoid()
            )
            for _ in range(n_tasks)
        )

    def forward(self, shared: Tensor, masked: list[Tensor]) -> list[Tensor]:
        """Masked features of every task, from the shared ones and the masked ones before."""
        if self.carry is None:
            return [mask(shared) * shared for mask in self.masks]
        return [
            mask(torch.cat([shared, self.carry(x)], 1)) * shared
            for mask, x in zip(self.masks, masked, strict=True)
        ]


def pointwise(n_in: int, n_out: int, shape: Shape) -> list[nn.Module]:
    """Layers that see one pixel, or the vector of features where there are no pixels."""
    if len(shape) == 1:
        return [nn.Linear(n_in, n_out)]
    return [nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out)]


def carry(before: Shape, shape: Shape) -> nn.Module:
    """f: brings features of the stage before to the shape of this one."""
    if len(shape) == 1:
        mean = [nn.AvgPool2d(before[1:]), nn.Flatten()] if len(before) == 3 else []
        return nn.Sequential(*mean, nn.Linear(before[0], shape[0]), nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(before[0], shape[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(shape[0]),
        nn.ReLU(),
        nn.MaxPool2d(*windows(before, shape)),
    )
