"""One task's output as an input of the others."""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from taskdisc.errors import SettingError
from taskdisc.mtl.architectures.base import MultiTaskNetwork, Plan, linear_heads
from taskdisc.mtl.backbones.base import Backbone

PREDICTED: dict[str, Callable[[Tensor], Tensor]] = {
    "classification": lambda outputs: torch.softmax(outputs, 1),
    "binary": torch.sigmoid,
    "multi-label": torch.sigmoid,
    "regression": lambda outputs: outputs,
}
"""What outputs of a task say of an image, by the task's kind."""


class LabelReuse(MultiTaskNetwork):
    """Every other task reads the giver's predicted label beside the convolutional features.

    The giver's output goes through a softmax if it is of classes, through a sigmoid if it is yes or
    no, and is taken as it is if it is a number. It is concatenated to what the first linear layer
    after the convolutions takes: that of the fully connected stages, or the head where the
    backbone has no such stages.
    Fully connected stages and heads are each task's own.

    Args:
        plan: For what it is made.
        giver: The task whose output is reused.
        convolutions: `shared` by all tasks, or `independent`.
        detach: Whether the losses of the other tasks stop at the giver's output; else they train
            the giver too.

    Raises:
        SettingError: the first fully connected stage is no sequence with a linear layer in it.
    """

    def __init__(self, plan: Plan, giver: int, convolutions: str, detach: bool) -> None:
        super().__init__()
        self.giver = giver
        self.predicted = PREDICTED[plan.kinds[giver]]
        self.detach = detach
        backbones = [plan.backbone() for _ in plan.n_outputs]
        n = backbones[0].n_convolutional
        bottoms = backbones[:1] if convolutions == "shared" else backbones
        tops = [backbone.part(n) for backbone in backbones]
        self.convolutions = nn.ModuleList(backbone.part(0, n) for backbone in bottoms)
        self.tops = nn.ModuleList(tops)
        widths = [top.n_features for top in tops]
        for task, top in enumerate(tops):
            if task == giver:
                continue
            if len(top.stages):
                top.stages[0] = Wider(top.stages[0], plan.n_outputs[giver])
            else:
                widths[task] += plan.n_outputs[giver]
        self.heads = linear_heads(widths, plan.n_outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [convolutions(images) for convolutions in self.convolutions]
        features *= len(self.heads) // len(features)
        given = self.heads[self.giver](self.tops[self.giver](features[self.giver]))
        label = self.predicted(given)
        if self.detach:
            label = label.detach()
        return [
            given if task == self.giver else self._output(task, features[task], label)
            for task in range(len(self.heads))
        ]

    def _output(self, task: int, x: Tensor, label: Tensor) -> Tensor:
        stages = list(cast("Backbone", self.tops[task]).stages)
        x = stages[0](x, label) if stages else torch.cat([x, label], 1)
        for stage in stages[1:]:
            x = stage(x)
        return self.heads[task](x)


class Wider(nn.Module):
    """A fully connected stage whose first linear layer takes more inputs, concatenated to its own.

    W [x; y] = W_x x + W_y y: the layer itself stays, with its weights and whether it is frozen,
    and another gives the second term. Its initial weights are those of one layer on both.

    Args:
        stage: A sequence with a linear layer in it.
        n_more: How many more inputs y.

    Raises:
        SettingError: it is not.
    """

    def __init__(self, stage: nn.Module, n_more: int) -> None:
        super().__init__()
        layers = list(stage) if isinstance(stage, nn.Sequential) else [stage]
        places = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
        if not places:
            raise SettingError(
                "the first fully connected stage of the backbone must be a sequence with a linear "
                "layer in it for architecture 'label-reuse'; choose another backbone."
            )
        self.before = nn.Sequential(*layers[: places[0]])
        self.linear = cast("nn.Linear", layers[places[0]])
        self.after = nn.Sequential(*layers[places[0] + 1 :])
        self.more = nn.Linear(n_more, self.linear.out_features, bias=False)
        bound = 1 / math.sqrt(self.linear.in_features + n_more)
        nn.init.uniform_(self.more.weight, -bound, bound)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.after(self.linear(self.before(x)) + self.more(y))
