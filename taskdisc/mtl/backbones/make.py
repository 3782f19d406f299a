"""Backbones by name."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taskdisc.errors import SettingError, did_you_mean
from taskdisc.mtl.backbones.common import COMMON, check_weights
from taskdisc.mtl.backbones.row import Row
from taskdisc.mtl.backbones.table import BACKBONES, TORCHVISION
from taskdisc.mtl.settings import check_settings, values_of

if TYPE_CHECKING:
    from taskdisc.mtl.backbones.base import Backbone


def make_backbone(name: str, shape: Sequence[int], **settings: Any) -> "Backbone":
    """A backbone for images of a shape, with weights that are given or drawn from PyTorch.

    Given weights of the backbone itself are its whole state; a hidden layer that they lack is
    drawn. Those of a classifier of torchvision leave out the last layer where the features are
    taken before it, so it may have been trained for any number of classes.

    Args:
        name: A key of `BACKBONES`, or `torchvision:NAME` with any classifier of torchvision.
        shape: Of an image, [C, H, W].
        settings: Its settings and those of `COMMON`; the others have their defaults.

    Raises:
        SettingError: an unknown name or setting, a value that breaks its rule, images that are too
            small for it, or weights that cannot be had or are of another network.
    """
    from taskdisc.mtl.backbones.build import build

    row = checked(name, settings)
    if min(shape[1:]) < row.least_side:
        raise SettingError(
            f"images must be at least {row.least_side} x {row.least_side} pixels for backbone "
            f"'{name}', got {shape[1]} x {shape[2]}; choose another backbone or larger images."
        )
    return build(name, tuple(shape), row, values_of({**COMMON, **row.settings}, settings, 1))


def checked(name: str, settings: Mapping[str, Any]) -> Row:
    """The row of a backbone that could be made so; imports nothing heavy.

    Raises:
        SettingError: as `make_backbone`, but for what shows only with images, weights and the
            names of torchvision.
    """
    kind, _, model = name.partition(":")
    if not (name in BACKBONES or (kind == "torchvision" and model)):
        raise SettingError(
            f"the backbone must be a known one, got {name!r}; "
            f"{did_you_mean(name, [*BACKBONES, 'torchvision:NAME'])}"
        )
    row = TORCHVISION if model else BACKBONES[name]
    rules = {**COMMON, **row.settings}
    check_settings("backbone", name, rules, settings, 1)
    values = values_of(rules, settings, 1)
    check_weights(name, values, downloadable=bool(model))
    row.check(values)
    return row
