"""A backbone from checked settings: its stages, given weights, what is trained."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from taskdisc.classifiers import TRAINED, default_weights, download_state, load, read_state
from taskdisc.errors import SettingError
from taskdisc.mtl.backbones.base import Backbone, Shape
from taskdisc.mtl.backbones.common import COMMON, DOWNLOAD, Common
from taskdisc.mtl.backbones.row import Row

OWN = "stages."
"""How the names of a backbone's own weights begin, and those of no classifier of torchvision."""

SHARED = f"{TRAINED}shared."
"""How names of its backbone's weights begin in a checkpoint, where it is one for all tasks."""


def build(name: str, shape: Shape, row: Row, values: dict[str, Any]) -> Backbone:
    """The backbone; see `make_backbone`.

    Args:
        name: Of the backbone.
        shape: Of an image, [C, H, W].
        row: Its row.
        values: All of its settings.

    Raises:
        SettingError: weights that cannot be had or are of another network, a classifier that
            torchvision does not have or that does not take such images, or too large an `n_last`.
    """
    common = Common(**{key: values[key] for key in COMMON})
    special = {key: values[key] for key in row.settings}
    _, _, model = name.partition(":")
    state = _state(name, model, common.weights)
    own = any(key.startswith(OWN) for key in state)
    if model:
        special |= {"model": model, "state": {} if own else state, "weights": common.weights}
    stages, n_convolutional = row.stages(shape, **special)
    backbone = Backbone(stages, shape, n_convolutional)
    n_frozen = _n_frozen(name, common, stages)
    if common.hidden:
        backbone.append(nn.Sequential(nn.Linear(backbone.n_features, common.hidden), nn.ReLU()))
    if own or (state and not model):
        _load_own(backbone, len(stages), state, common.weights, name)
    elif state:
        transforms = default_weights(model).transforms()
        backbone.normalisation = torch.tensor([transforms.mean, transforms.std])
    backbone.freeze(n_frozen)
    return backbone


def _state(name: str, model: str, weights: str) -> dict[str, Tensor]:
    """The given weights by name; none where none are given."""
    if not weights:
        return {}
    if weights == DOWNLOAD:
        return download_state(model, "`weights`: WEIGHTS.pth")
    rule = f"`weights` of backbone '{name}' must be a file of"
    state = read_state(Path(weights).expanduser(), rule)
    if not any(key.startswith(TRAINED) for key in state):
        return state
    shared = {key.removeprefix(SHARED): v for key, v in state.items() if key.startswith(SHARED)}
    if not shared:
        raise SettingError(
            f"{rule} a backbone's weights, got '{weights}', a checkpoint whose network has none "
            "for all tasks; take one of architecture hard-sharing."
        )
    return shared


def _load_own(
    backbone: Backbone, n_stages: int, state: dict[str, Tensor], weights: str, name: str
) -> None:
    """Give a backbone weights of one like it; a hidden layer that they lack stays as drawn."""
    if "normalisation" in state:
        backbone.normalisation = torch.empty_like(state["normalisation"])
    hidden = f"{OWN}{n_stages}."
    if not any(key.startswith(hidden) for key in state):
        drawn = backbone.state_dict()
        state = {**state, **{key: drawn[key] for key in drawn if key.startswith(hidden)}}
    load(backbone, state, weights, f"backbone '{name}' with these settings")


def _n_frozen(name: str, common: Common, stages: list[nn.Module]) -> int:
    """How many of the first stages are not trained."""
    if common.mode != "last":
        return len(stages) if common.mode == "fixed" else 0
    found = [i for i, stage in enumerate(stages) if any(True for _ in stage.parameters())]
    if common.n_last > len(found):
        raise SettingError(
            f"`n_last` of backbone '{name}' must be at most {len(found)}, its stages with "
            f"parameters, got {common.n_last}; to train all of them, set `mode` to whole."
        )
    return found[-common.n_last]
