"""All backbones, as data."""

from taskdisc.mtl.backbones.row import Row
from taskdisc.mtl.paper import Paper
from taskdisc.mtl.settings import Whole

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
    ),
    "convnet": Row(
        "three convolutions with batch normalisation, then a layer",
        None,
        "small:convnet",
        settings={"width": Whole(32, low=1)},
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
    ),
}
"""By name; beside them any model of torchvision as `torchvision:NAME`."""
