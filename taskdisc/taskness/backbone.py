"""A torchvision classifier without its last layer, as features of images."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.errors import SettingError, did_you_mean

_LIKE_TENSORFLOW: dict[str, Any] = {"transform_input": True, "init_weights": False}
_OPTIONS = {"googlenet": _LIKE_TENSORFLOW, "inception_v3": _LIKE_TENSORFLOW}
"""Of networks that torchvision builds in another way where it loads its weights itself."""


def backbone(name: str, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images uint8 [n, H, W, 3] to features float32 [n, n_features].

    The features are what the network's last linear layer takes in. Images are prepared by the
    transforms that torchvision publishes with the network's default weights, wherever the weights
    come from, so that a file and a download of the same weights give the same: for most networks,
    the shorter side to 256 pixels, the central 224 x 224, ImageNet's means and deviations.

    Args:
        name: ``NAME``, any classifier of torchvision with its default weights, which are
            downloaded once; or ``NAME=WEIGHTS.pth``, a file with the state dict of one. The last
            layer is left out, so it may have been trained for any number of classes.
        device: Where the network runs.

    Raises:
        SettingError: no such network, none with a linear layer, weights that cannot be downloaded
            or read, or weights of another network.
    """
    import torch
    from torch import nn
    from torchvision import models

    name, _, path = name.partition("=")
    names = models.list_models(module=models)
    if name not in names:
        raise SettingError(
            "`closed_form.features` must be torchvision:NAME with a classifier of torchvision, "
            f"got {name!r}; {did_you_mean(name, names)}"
        )
    network = models.get_model(name, weights=None, **_OPTIONS.get(name, {}))
    layers = [layer for layer, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise SettingError(
            f"`closed_form.features` must be torchvision:NAME with a network that ends in a linear "
            f"layer, got {name!r}; choose another, such as resnet18."
        )
    head = layers[-1]
    weights = models.get_model_weights(name).DEFAULT
    state = _read(Path(path).expanduser()) if path else _downloaded(name, weights)
    network.set_submodule(head, nn.Identity())
    _load(network, name, {k: v for k, v in state.items() if not k.startswith(f"{head}.")}, path)
    network.eval().to(device)
    prepare = weights.transforms()

    def describe(images: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
        return network(prepare(batch)).flatten(1).cpu().numpy()

    return describe


def _downloaded(name: str, weights: Any) -> dict[str, Any]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    # RuntimeError: the file came, but with another hash.
    except (OSError, RuntimeError) as error:
        raise SettingError(
            f"the weights of torchvision:{name} could not be downloaded: {error}. Give a file: "
            f"torchvision:{name}=WEIGHTS.pth with what {weights.url} holds."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    import torch

    rule = "`closed_form.features` must be torchvision:NAME=WEIGHTS.pth with a file of"
    if not path.is_file():
        raise SettingError(f"{rule} weights, got '{path}', which is no file.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # A file of another kind can raise anything here.
    except Exception as error:
        raise SettingError(
            f"{rule} tensors, got '{path}', which cannot be read without running what it holds or "
            "not at all; write it with torch.save(network.state_dict(), path)."
        ) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise SettingError(
            f"{rule} tensors by name, got something else in '{path}'; "
            "write it with torch.save(network.state_dict(), path)."
        )
    return state


def _load(network: Any, name: str, state: dict[str, Any], path: str) -> None:
    # As torchvision does itself: DenseNet's published weights have names of an older PyTorch.
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)", r"\1", key): value
        for key, value in state.items()
    }
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        # The first line only names the class; the second, the first kind of difference.
        first = str(error).splitlines()[1].strip()[:100]
        raise SettingError(
            f"the weights in '{path}' must be those of torchvision's {name}, got others ({first} "
            "…); name the network that they belong to."
        ) from error
