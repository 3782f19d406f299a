"""Torchvision's classifiers, cut into stages where that can be done."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taskdisc.classifiers import last_linear, load_classifier, new_classifier, remove_head
from taskdisc.errors import SettingError
from taskdisc.mtl.backbones.base import Shape

RULE = "the backbone must be torchvision:NAME"

Parts = list[tuple[str, nn.Module]]
"""Modules in a row, with the names that torchvision gives them."""


def stages(
    shape: Shape, model: str, state: Mapping[str, Tensor], weights: str, features: str, side: int
) -> tuple[list[nn.Module], int]:
    """The children of a classifier as stages, or all of it as one stage.

    They are its children where running these one after the other, with a flatten before the one
    that ends in the last linear layer, gives what the classifier gives. Children without weights,
    such as poolings, and normalisations join the stage before them.

    Args:
        shape: Of an image, [3, H, W].
        model: As torchvision names it.
        state: Its weights, as torchvision names them; empty for initial ones.
        weights: Where they come from, for an error sentence.
        features: `output`, or `penultimate` for what its last linear layer takes.
        side: To which height and width images are resized first; 0 for none.

    Raises:
        SettingError: no such classifier, none with a linear layer to take features before, weights
            of another one, or images of a shape that it does not take.
    """
    network = new_classifier(model, RULE)
    if shape[0] != 3:
        raise SettingError(
            f"images must have 3 channels for backbone 'torchvision:{model}', got {shape[0]}."
        )
    last = last_linear(network)
    removed = remove_head(network, model, RULE) if features == "penultimate" else ""
    rows, n_convolutional = _cut(network, last.partition(".")[0], _images(shape, side), model)
    if side:
        rows[0].insert(0, ("resize", Resize(side)))
    if state:
        load_classifier(network, model, state, weights, removed)
    return [nn.Sequential(OrderedDict(parts)) for parts in rows], n_convolutional


class Resize(nn.Module):
    """Images [n, C, H, W] at side x side pixels, where they are, by antialiased interpolation."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        size = (self.side, self.side)
        return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def _images(shape: Shape, side: int) -> Tensor:
    size = (side, side) if side else shape[1:]
    return torch.rand(1, shape[0], *size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _cut(network: nn.Module, last: str, images: Tensor, model: str) -> tuple[list[Parts], int]:
    """The parts of each stage, and how many stages come before the fully connected layers.

    Args:
        network: The classifier, with its initial weights: given ones could hide a difference.
        last: Its child with the last linear layer, which may have been removed.
        images: One random image [1, 3, H, W].
        model: For an error sentence.
    """
    network.eval()
    try:
        expected = network(images)
    # Some classifiers check the size of images, others fail in the middle.
    except (RuntimeError, AssertionError, ValueError) as error:
        size = " x ".join(map(str, images.shape[2:]))
        raise SettingError(
            f"images must have a size that backbone 'torchvision:{model}' takes, got {size} "
            f"({str(error).splitlines()[0][:100]}); set its `side`, such as 224."
        ) from error
    rows = _rows(network, flatten_before=last)
    if not _gives(rows, images, expected):
        rows = _rows(network, flatten_before="")
    if not _gives(rows, images, expected):
        rows, last = [[("network", network)]], "network"
    network.train()
    n_convolutional = [i for i, parts in enumerate(rows) if _has_linear(dict(parts).get(last))]
    return rows, n_convolutional[0] if n_convolutional else len(rows)


def _rows(network: nn.Module, flatten_before: str) -> list[Parts]:
    """The children, joined to stages."""
    rows: list[Parts] = []
    for name, child in network.named_children():
        parts: Parts = [(name, child)]
        if name == flatten_before:
            parts.insert(0, ("flattened", nn.Flatten()))
        # What has but vectors for parameters is a normalisation.
        if rows and all(parameter.dim() < 2 for parameter in child.parameters()):
            rows[-1] += parts
        else:
            rows.append(parts)
    return rows


def _gives(rows: list[Parts], x: Tensor, expected: Tensor) -> bool:
    try:
        for parts in rows:
            for _, part in parts:
                x = part(x)
    # A child that takes something else than the one before it gives can raise anything.
    except Exception:
        return False
    return torch.equal(x, expected)


def _has_linear(module: nn.Module | None) -> bool:
    return module is not None and any(isinstance(part, nn.Linear) for part in module.modules())
