"""What an architecture is: images in, one output per task out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from taskdisc.mtl.backbones.base import Backbone, Shape


@dataclass(frozen=True)
class Plan:
    """For what a network is made.

    Attributes:
        backbone: Makes one backbone; every call draws other initial weights.
        n_outputs: Of each task's head, at least 1.
        kinds: Of the tasks, keys of `KINDS`.
    """

    backbone: Callable[[], Backbone]
    n_outputs: tuple[int, ...]
    kinds: tuple[str, ...]

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.n_outputs)


@dataclass(frozen=True)
class Shown:
    """What a network has learned about its tasks, for the page.

    Attributes:
        title: What it is, one line.
        matrix: Task by task [n_tasks, n_tasks], where it is one.
        text: Lines of text, where it is not.
    """

    title: str
    matrix: tuple[tuple[float, ...], ...] = ()
    text: str = ""


class MultiTaskNetwork(nn.Module, ABC):
    """A network with an output for each task.

    Which parameters the tasks share is not declared but found: see `reach`.

    Attributes:
        heads: The last layer of each task, in the order of the tasks, with a learning rate of its
            own. Other tasks may reach a head too, where they read its output.
    """

    heads: nn.ModuleList

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Outputs [n, n_outputs] of every task for images [n, C, H, W]."""

    def penalty(self) -> Tensor | None:
        """A scalar to add to the tasks' losses, such as a prior on the weights; None for none."""
        return None

    def after_epoch(self, correct: Tensor) -> bool:
        """Hears once per epoch how the tasks went; True where that changed what tasks share.

        Args:
            correct: How good each prediction on a validation batch was, [n_tasks, n]: the
                negative loss of each image, NaN where it has no label.
        """
        return False

    def shown(self, names: Sequence[str]) -> list[Shown]:
        """What it has learned about its tasks, which have these names."""
        return []


def reach(network: MultiTaskNetwork, images: Tensor) -> dict[str, list[int]]:
    """Which tasks' outputs depend on each trained parameter, by the parameter's name.

    Found by going back through the graph of one forward pass; a parameter that several tasks
    reach is a shared one, whatever the architecture.

    Args:
        network: The network; it is left as it was.
        images: Two images or more, [n, C, H, W].
    """
    training = network.training
    network.eval()
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    found: dict[str, list[int]] = {name: [] for name in parameters}
    with torch.enable_grad():
        outputs = network(images)
    for task, output in enumerate(outputs):
        gradients = torch.autograd.grad(
            output.sum(), list(parameters.values()), retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                found[name].append(task)
    network.train(training)
    return found


def linear_heads(n_features: int | Sequence[int], n_outputs: Sequence[int]) -> nn.ModuleList:
    """One linear layer per task, on as many features each."""
    widths = [n_features] * len(n_outputs) if isinstance(n_features, int) else n_features
    return nn.ModuleList(nn.Linear(w, n) for w, n in zip(widths, n_outputs, strict=True))


def stages_of(backbones: nn.ModuleList) -> list[tuple[nn.Module, ...]]:
    """The stages of several backbones: for each depth, those of all backbones."""
    return list(zip(*(cast("Backbone", backbone).stages for backbone in backbones), strict=True))


def windows(before: Shape, after: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size and stride of pooling from maps [C, H, W] of one shape to no larger ones of another.

    Windows of one size, unlike those of adaptive pooling, whose gradients are not deterministic on
    every device.
    """
    (height, width), (new_height, new_width) = before[1:], after[1:]
    stride = (height // new_height, width // new_width)
    size = (height - (new_height - 1) * stride[0], width - (new_width - 1) * stride[1])
    return size, stride


def rows_of(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    """A matrix as `Shown` takes it."""
    values: Any = matrix.detach().cpu().tolist()
    return tuple(tuple(row) for row in values)
