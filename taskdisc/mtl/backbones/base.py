"""What a backbone is: stages in a row, from images to features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
"""Of one image's features without the batch: [C, H, W], or [n_features]."""


class Backbone(nn.Module):
    """Stages in a row. Architectures share, copy or join them one by one.

    Attributes:
        stages: The first takes images [n, C, H, W]; the last gives features [n, n_features].
        shapes: Of what goes into each stage, and of what comes out of the last one.
        n_convolutional: How many stages come before the fully connected ones.
        n_frozen: How many of the first stages are not trained.
        normalisation: Means and deviations of the channels, [2, C], that images with values from 0
            to 1 are to be brought to 0 and 1 with; None for those of the training images. It is
            part of the `state_dict`, so that given weights keep the preparation they were trained
            with.
    """

    normalisation: Tensor | None

    def __init__(self, stages: Sequence[nn.Module], shape: Shape, n_convolutional: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.shapes = shapes_of(stages, shape)
        self.n_convolutional = n_convolutional
        self.n_frozen = 0
        self.register_buffer("normalisation", None)

    @property
    def n_features(self) -> int:
        """Width of the features that the last stage gives."""
        return self.shapes[-1][0]

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, n_features] of images [n, C, H, W]."""
        x = images
        for stage in self.stages:
            x = stage(x)
        return x

    def append(self, stage: nn.Module) -> None:
        """Let one more stage follow the last one."""
        self.shapes += shapes_of([stage], self.shapes[-1])[1:]
        self.stages.append(stage)

    def split(self) -> tuple["Backbone", "Backbone"]:
        """The frozen stages and the others, each as a backbone of the same modules.

        What the frozen ones give for an image never changes, so it can be computed once, see
        `frozen_features`, and the others trained on it. They take it as it is, without
        normalisation. With no stage on one side, that side gives what it takes.
        """
        frozen = self.part(0, self.n_frozen)
        frozen.normalisation = self.normalisation
        return frozen, self.part(self.n_frozen)

    def part(self, first: int = 0, last: int | None = None) -> "Backbone":
        """The stages from `first` up to `last`, the same modules, as a backbone; frozen ones so."""
        last = len(self.stages) if last is None else last
        n_convolutional = max(0, min(self.n_convolutional, last) - first)
        found = Backbone([], self.shapes[first], n_convolutional)
        found.stages.extend(self.stages[first:last])
        found.shapes = self.shapes[first : last + 1]
        found.train(self.training)
        found.freeze(max(0, min(self.n_frozen, last) - first))
        return found

    def freeze(self, n_stages: int) -> None:
        """Leave the first stages as they are from now on, batch statistics too."""
        self.n_frozen = n_stages
        for stage in self.stages[:n_stages]:
            stage.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """As of any module, but that frozen stages stay in evaluation."""
        super().train(mode)
        for stage in self.stages[: self.n_frozen]:
            stage.eval()
        return self


@torch.no_grad()
def frozen_features(frozen: Backbone, images: Tensor, batch_size: int = 256) -> Tensor:
    """What frozen stages give for all images [n, C, H, W], computed in batches.

    Args:
        frozen: The first of `Backbone.split`.
        images: Normalised images, on the device of the stages.
        batch_size: How many images at a time, at least 1.
    """
    return torch.cat([frozen(batch) for batch in images.split(batch_size)])


@torch.no_grad()
def shapes_of(stages: Sequence[nn.Module], shape: Shape) -> list[Shape]:
    """The shape of what goes into each stage and out of the last one, without the batch.

    Raises:
        RuntimeError: a stage cannot take what the one before it gives.
    """
    shapes = [tuple(shape)]
    x = torch.zeros(2, *shape)
    for stage in stages:
        training = stage.training
        x = stage.eval()(x)
        stage.train(training)
        shapes.append(tuple(x.shape[1:]))
    return shapes
