"""Backbones by name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taskdisc.errors import SettingError, did_you_mean
from taskdisc.mtl.backbones.table import BACKBONES
from taskdisc.mtl.settings import check_settings, values_of

if TYPE_CHECKING:
    from taskdisc.mtl.backbones.base import Backbone


def make_backbone(name: str, shape: Sequence[int], **settings: Any) -> "Backbone":
    """A backbone for images of a shape, with weights drawn from PyTorch's generator.

    Args:
        name: A key of `BACKBONES`.
        shape: Of an image, [C, H, W].
        settings: Its settings; the others have their defaults.

    Raises:
        SettingError: an unknown name or setting, a value that breaks its rule, or images that are
            too small for it.
    """
    from taskdisc.mtl.backbones.base import Backbone

    if name not in BACKBONES:
        raise SettingError(
            f"the backbone must be a known one, got {name!r}; {did_you_mean(name, BACKBONES)}"
        )
    row = BACKBONES[name]
    check_settings("backbone", name, row.settings, settings, 1)
    stages, n_convolutional = row.stages(tuple(shape), **values_of(row.settings, settings, 1))
    return Backbone(stages, tuple(shape), n_convolutional)
