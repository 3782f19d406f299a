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
    """

    def __init__(self, stages: Sequence[nn.Module], shape: Shape, n_convolutional: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.shapes = shapes_of(stages, shape)
        self.n_convolutional = n_convolutional
        self.n_frozen = 0

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
