"""Settings that all backbones have: where their weights come from, and which are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskdisc.errors import SettingError
from taskdisc.mtl.settings import Choice, Setting, Whole

DOWNLOAD = "download"


@dataclass(frozen=True)
class Weights:
    """A file of weights, `download`, or empty for none."""

    default: str = ""

    def rule(self, n_tasks: int) -> str:
        return f"a file of weights, {DOWNLOAD}, or empty"

    def keeps(self, value: Any, n_tasks: int) -> bool:
        return isinstance(value, str)

    def value(self, value: Any, n_tasks: int) -> str:
        return str(value)


@dataclass(frozen=True)
class Common:
    """Their values.

    Attributes:
        mode: `scratch`: initial weights, all trained; `whole`: given weights, all trained; `last`:
            given weights, only the last `n_last` stages trained; `fixed`: given weights, none
            trained.
        n_last: How many of the last stages that have parameters are trained in mode `last`, at
            least 1; the hidden layer does not count.
        weights: A file with a state dict, of the backbone itself or of a classifier as torchvision
            names it; `download` for torchvision's default weights; empty for none.
        hidden: Width of one more fully connected layer with ReLU after the features, always
            trained; 0 for none.
    """

    mode: str
    n_last: int
    weights: str
    hidden: int


COMMON: dict[str, Setting] = {
    "mode": Choice("scratch", ("scratch", "whole", "last", "fixed")),
    "n_last": Whole(1, low=1),
    "weights": Weights(),
    "hidden": Whole(0),
}
"""By name, in the order of `Common`."""


def check_weights(name: str, values: Mapping[str, Any], downloadable: bool) -> None:
    """Refuse a mode that does not go with the weights.

    Args:
        name: Of the backbone, for error sentences.
        values: All of its settings.
        downloadable: Whether its weights can be downloaded.

    Raises:
        SettingError: they do not go together.
    """
    mode, weights = values["mode"], values["weights"]
    where = f"{DOWNLOAD} or a file" if downloadable else "a file"
    if mode == "scratch" and weights:
        raise SettingError(
            f"`weights` of backbone '{name}' must be empty in mode scratch, got {weights!r}; "
            "set `mode` to whole, last or fixed."
        )
    if mode != "scratch" and not weights:
        raise SettingError(
            f"`weights` of backbone '{name}' must be given in mode {mode}, got none; "
            f"give {where}, or set `mode` to scratch."
        )
    if weights == DOWNLOAD and not downloadable:
        raise SettingError(
            f"`weights` of backbone '{name}' must be a file, for only torchvision's can be "
            f"downloaded, got {weights!r}."
        )
