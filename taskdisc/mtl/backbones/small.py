"""Small networks for small images."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from taskdisc.mtl.backbones.base import Shape


def lenet(shape: Shape) -> tuple[list[nn.Module], int]:
    """Two convolutions of 6 and 16 channels with pooling, then 120 and 84 units."""
    side = [((size - 4) // 2 - 4) // 2 for size in shape[1:]]
    return [
        nn.Sequential(nn.Conv2d(shape[0], 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(16 * side[0] * side[1], 120), nn.ReLU()),
        nn.Sequential(nn.Linear(120, 84), nn.ReLU()),
    ], 2


def convnet(shape: Shape, width: int) -> tuple[list[nn.Module], int]:
    """Three convolutions of 3 x 3 with normalisation and pooling, then a layer of four widths."""
    channels = [shape[0], width, 2 * width, 4 * width]
    blocks: list[nn.Module] = [
        nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        for before, after in pairwise(channels)
    ]
    n_inputs = channels[-1] * (shape[1] // 8) * (shape[2] // 8)
    last = nn.Sequential(nn.Flatten(), nn.Linear(n_inputs, 4 * width), nn.ReLU())
    return [*blocks, last], 3


def resnet(shape: Shape, depth: int, width: int) -> tuple[list[nn.Module], int]:
    """The residual network for CIFAR: a convolution, three groups of blocks, the mean of the last.

    He et al. 2016, section 4.2: 6n + 2 layers, widths 16, 32, 64, shortcuts without parameters.
    """
    n_blocks = (depth - 2) // 6
    groups: list[nn.Module] = []
    n_channels = width
    for group in range(3):
        blocks = []
        for block in range(n_blocks):
            stride = 2 if group and not block else 1
            blocks.append(_Block(n_channels, width * 2**group, stride))
            n_channels = width * 2**group
        groups.append(nn.Sequential(*blocks))
    first = nn.Sequential(
        nn.Conv2d(shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    )
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return [first, *groups[:2], nn.Sequential(groups[2], mean)], 4


class _Block(nn.Module):
    """Two convolutions beside a shortcut, which drops pixels and pads channels where it must."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.n_new = n_out - n_in
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, 0, self.n_new)))
