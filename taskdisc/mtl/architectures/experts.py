"""Experts and gates: what mixtures of experts are built of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from taskdisc.mtl.architectures.base import windows
from taskdisc.mtl.backbones.base import Backbone, Shape

GRID = 4
"""Gates see maps as means over at most that many cells per side."""


class Gate(nn.Module):
    """A softmax over experts, linear in what goes into them.

    Args:
        shape: Of what goes into them; maps [C, H, W] are pooled to at most `GRID` × `GRID` means.
        n_experts: How many there are to choose from.
    """

    def __init__(self, shape: Shape, n_experts: int) -> None:
        super().__init__()
        small = (shape[0], *(min(side, GRID) for side in shape[1:]))
        pool = [nn.AvgPool2d(*windows(shape, small))] if len(shape) == 3 else []
        n_inputs = torch.Size(small).numel()
        self.scores = nn.Sequential(*pool, nn.Flatten(), nn.Linear(n_inputs, n_experts))

    def forward(self, x: Tensor) -> Tensor:
        """Weights [n, n_experts]."""
        return torch.softmax(self.scores(x), 1)


class Level(nn.Module):
    """Experts side by side, and a gate per task that mixes its own experts and the shared ones.

    Args:
        experts: With inputs of one shape and features of one shape.
        owners: To which task each expert belongs, or `n_tasks` for a shared one.
        n_tasks: How many.
        last: Whether no level follows; else one more gate mixes all experts for the shared ones of
            the next level.
    """

    def __init__(
        self, experts: Sequence[Backbone], owners: Sequence[int], n_tasks: int, last: bool
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.owners = list(owners)
        everything = list(range(len(experts)))
        self.seen = [
            [expert for expert in everything if owners[expert] in (task, n_tasks)]
            for task in range(n_tasks)
        ]
        if not last:
            self.seen.append(everything)
        self.gates = nn.ModuleList(Gate(experts[0].shapes[0], len(seen)) for seen in self.seen)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Mixed features of every task, and for the shared experts unless it is the last level.

        Args:
            inputs: Of every task's own experts, then of the shared ones.
        """
        features = [
            expert(inputs[owner]) for expert, owner in zip(self.experts, self.owners, strict=True)
        ]
        return [
            torch.einsum("ne,en...->n...", gate(x), torch.stack([features[e] for e in seen]))
            for gate, x, seen in zip(self.gates, inputs, self.seen, strict=False)
        ]


def owners_of(n_tasks: int, n_own: int, n_shared: int) -> list[int]:
    """To whom experts belong: `n_own` to each task, then `n_shared` to all."""
    return [task for task in range(n_tasks) for _ in range(n_own)] + [n_tasks] * n_shared
