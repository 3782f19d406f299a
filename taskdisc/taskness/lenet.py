"""The LeNet of the source work: shallow on purpose, to tell learnable from not."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 32
"""Height and width in pixels of the images that the network takes."""

SHAPES: dict[str, tuple[int, ...]] = {
    "conv1.weight": (6, 3, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (120, 400),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
    "fc3.weight": (2, 84),
    "fc3.bias": (2,),
}
"""Parameters of the two-output network, in the order of a flat parameter vector."""

N_PARAMS = sum(int(np.prod(shape)) for shape in SHAPES.values())


class LeNet(nn.Module):
    """32x32x3 -> conv 5x5, 6 -> pool -> conv 5x5, 16 -> pool -> 120 -> 84 -> outputs, with ReLU.

    62,006 parameters for 10 outputs, 61,326 for 2. LeCun et al. 1998, "Gradient-based learning
    applied to document recognition", in today's usual form: max-pooling, ReLU, three channels.
    """

    def __init__(self, n_outputs: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, n_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n_images, n_outputs] of standardised images [n_images, 3, 32, 32]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


def initial_parameters(seeds: Iterable[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Parameters [n_models, 61326] of two-output networks, each drawn from its own seed alone.

    PyTorch's default for these layers: weights and biases uniform in ±1/√fan-in. Drawn on the
    CPU in float32 whatever the device and dtype, so that a seed names one network everywhere.
    """
    bounds = []
    for name, shape in SHAPES.items():
        fan_in = int(np.prod(SHAPES[name.replace("bias", "weight")][1:]))
        bounds.append(torch.full((int(np.prod(shape)),), fan_in**-0.5))
    bound = torch.cat(bounds)
    vectors = [
        torch.rand(N_PARAMS, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds
    ]
    return ((torch.stack(vectors) * 2 - 1) * bound).to(dtype)


def standardised(
    images: np.ndarray, dtype: torch.dtype = torch.float32, *, like: np.ndarray | None = None
) -> Tensor:
    """Images uint8 [n_images, 32, 32, 3] as [n_images, 3, 32, 32], channels at mean 0 and s.d. 1.

    Mean and deviation are those of this image set; no label enters. A constant channel becomes 0.
    Images that were not trained on take those of the image set that was, `like` [n, 32, 32, 3].
    """
    x = _channels(images, dtype)
    reference = x if like is None else _channels(like, dtype)
    mean = reference.mean(dim=(0, 2, 3), keepdim=True)
    std = reference.std(dim=(0, 2, 3), keepdim=True, correction=0)
    # In place: tens of thousands of images take 0.7 GB a copy.
    x.sub_(mean).div_(std.clamp_min(1e-5))
    # Below the step of one grey level there is only rounding.
    return x.masked_fill_(std <= 1e-5, 0)


def _channels(images: np.ndarray, dtype: torch.dtype) -> Tensor:
    # A copy, for torch warns of arrays that it may not write to, as memory maps are.
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).to(dtype).div_(255)
