"""A torchvision classifier without its last layer, as features of images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from taskdisc.classifiers import (
    default_weights,
    download_state,
    load_classifier,
    new_classifier,
    read_state,
    remove_head,
)

RULE = "`closed_form.features` must be torchvision:NAME"


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
    name, _, path = name.partition("=")
    network = new_classifier(name, RULE)
    head = remove_head(network, name, RULE)
    if path:
        state = read_state(Path(path).expanduser(), f"{RULE}=WEIGHTS.pth with a file of")
    else:
        state = download_state(name, f"torchvision:{name}=WEIGHTS.pth")
    load_classifier(network, name, state, path, head)
    network.eval().to(device)
    prepare = default_weights(name).transforms()

    def describe(images: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
        return network(prepare(batch)).flatten(1).cpu().numpy()

    return describe
