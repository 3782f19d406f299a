"""Torchvision's classifiers by name, and weights for them from a file or a download."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from taskdisc.errors import SettingError, did_you_mean
from taskdisc.tensors import load_tensors

_LIKE_TENSORFLOW = {"transform_input": True, "init_weights": False, "aux_logits": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": _LIKE_TENSORFLOW,
    "inception_v3": _LIKE_TENSORFLOW,
}
"""Of networks that torchvision builds in another way where it loads its weights itself.

Without the side outputs that these two have in training, they give one output as all others do.
"""

_SIDE_OUTPUTS = ("aux1.", "aux2.", "AuxLogits.")

TRAINED = "network."
"""How names of a network's weights begin in the checkpoint of a training, `best.ckpt`."""


def new_classifier(name: str, rule: str) -> nn.Module:
    """A classifier of torchvision with initial weights from PyTorch's generator.

    Args:
        name: As torchvision names it, such as `resnet18`.
        rule: The start of an error sentence, such as "`backbone` must be torchvision:NAME".

    Raises:
        SettingError: no such classifier.
    """
    names = models.list_models(module=models)
    if name not in names:
        raise SettingError(
            f"{rule} with a classifier of torchvision, got {name!r}; {did_you_mean(name, names)}"
        )
    return models.get_model(name, weights=None, **_OPTIONS.get(name, {}))


def last_linear(network: nn.Module) -> str:
    """The name of the last linear layer, empty where there is none."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers else ""


def remove_head(network: nn.Module, name: str, rule: str) -> str:
    """Let a classifier give what its last linear layer takes; the name of that layer.

    Raises:
        SettingError: it has none.
    """
    head = last_linear(network)
    if not head:
        raise SettingError(
            f"{rule} with a network that ends in a linear layer, got {name!r}; "
            "choose another, such as resnet18."
        )
    network.set_submodule(head, nn.Identity())
    return head


def default_weights(name: str) -> Any:
    """What torchvision publishes as the default weights of a classifier: address, transforms."""
    return models.get_model_weights(name).DEFAULT


def download_state(name: str, file: str) -> dict[str, Tensor]:
    """The default weights of a classifier, downloaded once.

    Args:
        name: As torchvision names it.
        file: How to give a file instead, for an error sentence.

    Raises:
        SettingError: they cannot be downloaded.
    """
    weights = default_weights(name)
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    # RuntimeError: the file came, but with another hash.
    except (OSError, RuntimeError) as error:
        raise SettingError(
            f"the weights of torchvision:{name} could not be downloaded: {error}. "
            f"Give a file: {file} with what {weights.url} holds."
        ) from error


def read_state(path: Path, rule: str) -> dict[str, Tensor]:
    """The tensors in a file, by name; runs nothing that the file holds.

    Of a checkpoint of `taskdisc mtl` those of its network, whose names begin with `network.`.

    Args:
        path: The file.
        rule: The start of an error sentence that goes on with "weights" or "tensors".

    Raises:
        SettingError: no such file, or one of something else.
    """
    if not path.is_file():
        raise SettingError(f"{rule} weights, got '{path}', which is no file.")
    try:
        state = load_tensors(path)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{rule} tensors, got '{path}', which cannot be read without running what it holds or "
            "not at all; write it with torch.save(network.state_dict(), path)."
        ) from error
    if isinstance(state, dict) and "taskdisc" in state:  # the checkpoint of a training
        state = _of_network(state.get("state_dict"))
    tensors = isinstance(state, dict) and all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()
    )
    if not tensors or not state:
        raise SettingError(
            f"{rule} tensors by name, got something else in '{path}'; "
            "write it with torch.save(network.state_dict(), path)."
        )
    for name, value in state.items():
        if value.is_complex() or not value.isfinite().all():
            raise SettingError(
                f"{rule} finite real numbers, got others in '{name[:80]}' of '{path}'; "
                "take weights of a training that did not diverge."
            )
    return state


def _of_network(state: object) -> dict[str, object]:
    """Of all states of a training, those of its network."""
    found = state if isinstance(state, dict) else {}
    return {key: value for key, value in found.items() if str(key).startswith(TRAINED)}


def load_classifier(
    network: nn.Module, name: str, state: Mapping[str, Tensor], path: str, head: str = ""
) -> None:
    """Give a classifier the weights of one as torchvision names them.

    Args:
        network: The classifier.
        name: As torchvision names it.
        state: The weights; those of side outputs are left out.
        path: Where they come from, for an error sentence.
        head: The layer that was removed, whose weights are left out.

    Raises:
        SettingError: they are of another network.
    """
    left_out = (*_SIDE_OUTPUTS, f"{head}.") if head else _SIDE_OUTPUTS
    # As torchvision does itself: DenseNet's published weights have names of an older PyTorch.
    renamed = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)", r"\1", key): value
        for key, value in state.items()
        if not key.startswith(left_out)
    }
    load(network, renamed, path, f"torchvision's {name}")


def load(network: nn.Module, state: Mapping[str, Tensor], path: str, owner: str) -> None:
    """Give a network its weights.

    Args:
        network: The network.
        state: The weights.
        path: Where they come from, for an error sentence.
        owner: Whose weights they must be, for an error sentence.

    Raises:
        SettingError: they are of another network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        # The first line only names the class; the second, the first kind of difference.
        first = str(error).splitlines()[-1 if "\n" not in str(error) else 1].strip()[:100]
        raise SettingError(
            f"the weights in '{path}' must be those of {owner}, got others ({first} …); "
            "name the network that they belong to."
        ) from error
