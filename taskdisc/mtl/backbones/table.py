"""All backbones, as data."""

from collections.abc import Mapping
from typing import Any

from taskdisc.errors import SettingError
from taskdisc.mtl.backbones.row import Row
from taskdisc.mtl.settings import Choice, Whole
from taskdisc.paper import Paper


def _check_depth(values: Mapping[str, Any]) -> None:
    depth = values["depth"]
    below = depth - (depth - 2) % 6
    if below != depth:
        raise SettingError(
            f"`depth` of backbone 'resnet' must be 6n + 2, got {depth}; "
            f"the nearest are {below} and {below + 6}."
        )


BACKBONES: dict[str, Row] = {
    "lenet": Row(
        "the LeNet of the search: two convolutions, 120 and 84 units",
        Paper(
            "LeCun et al.",
            1998,
            "Gradient-based learning applied to document recognition",
            "https://doi.org/10.1109/5.726791",
        ),
        "small:lenet",
        least_side=16,
    ),
    "convnet": Row(
        "three convolutions with batch normalisation, then a layer",
        None,
        "small:convnet",
        settings={"width": Whole(32, low=1)},
        least_side=8,
    ),
    "resnet": Row(
        "the residual network for CIFAR, of 6n + 2 layers",
        Paper(
            "He et al.",
            2016,
            "Deep Residual Learning for Image Recognition",
            "https://arxiv.org/abs/1512.03385",
        ),
        "small:resnet",
        settings={"depth": Whole(20, low=8), "width": Whole(16, low=1)},
        check=_check_depth,
    ),
}
"""By name; beside them any classifier of torchvision as `torchvision:NAME`."""

TORCHVISION = Row(
    "a classifier of torchvision, as `torchvision:NAME`",
    None,
    "classifier:stages",
    settings={
        "features": Choice("output", ("output", "penultimate")),
        "side": Whole(0),
    },
)
"""Of all of them. Their features are the outputs themselves, or what the last linear layer takes;
images are first resized to `side` pixels in height and width, where that is not 0."""
