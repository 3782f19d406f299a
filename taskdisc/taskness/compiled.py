"""Both convolutions of many LeNets on the same images, by `_convolutions.c`, on a CPU in float32.

The compiled file is built when the package is installed, where there is a C compiler; without it
everything runs in PyTorch, with the same scores but for rounding. `TASKDISC_COMPILED=0` in the
environment does without it.
"""

import ctypes
import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from taskdisc.taskness.convolutions import Layers, Patches

SWITCH = "TASKDISC_COMPILED"
"""Variable of the environment; 0 does without the compiled functions."""

# As in _convolutions.c.
_PIXELS = 3088  # floats of an image: 32 · 32 · 3, and room to read beyond the end
_HIDDEN1 = 1184  # of a first hidden layer: 14 · 14 · 6, and room
_NETWORKS = 5  # of a block
_LANES = 32  # output channels of a block, 6 per network, and two that mean nothing


def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they were not built, or `TASKDISC_COMPILED` is 0.

    Images that were laid out for them before are still read by them.
    """
    return None if os.environ.get(SWITCH) == "0" else _built()


@contextmanager
def left_out() -> Iterator[None]:
    """Within it, this process does without the compiled functions."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    try:
        yield
    finally:
        del os.environ[SWITCH]
        if before is not None:
            os.environ[SWITCH] = before


@cache
def _built() -> ctypes.CDLL | None:
    name = f"_convolutions{sysconfig.get_config_var('EXT_SUFFIX')}"
    file = Path(__file__).with_name(name)
    return ctypes.CDLL(str(file)) if file.exists() else None


def takes(images: Tensor) -> bool:
    """Whether these images can go through the compiled functions here."""
    return images.device.type == "cpu" and images.dtype == torch.float32 and library() is not None


def pixels(images: Tensor) -> Tensor:
    """Images [n, 3, 32, 32] as they are read [n, 3088]: by row, column and channel."""
    by_row = images.permute(0, 2, 3, 1).flatten(1)
    return F.pad(by_row, (0, _PIXELS - by_row.shape[1]))


class CompiledConvolutions:
    """The convolutions compiled, see `Convolutions`. Axes: m networks, n images of a chunk."""

    def __init__(self, patches: "Patches", parameters: "Layers", gradients: "Layers") -> None:
        m, n = len(parameters["conv1.bias"]), patches.chunk
        self.m, self.n, n_blocks = m, n, -(-m // _NETWORKS)
        self.pixels = list(patches.chunks)
        self.parameters, self.gradients = parameters, gradients
        zeros = patches.chunks.new_zeros
        # The first layer by network, the last block filled up, and then by lane.
        self.own1 = zeros(n_blocks * _NETWORKS, 5, 5, 3, 6)
        self.own_bias1 = zeros(n_blocks * _NETWORKS, 6)
        # Kernels by (row, column, input channel) before the output channels.
        self.kernels1 = zeros(n_blocks, 75, _LANES)
        self.bias1 = zeros(n_blocks, _LANES)
        self.kernels2 = zeros(m, 150, 16)
        self.bias2 = zeros(m, 16)
        self.back2 = zeros(m, 16, 5, 32)  # … and after them, rows filled up from 30 with 0
        self.hidden1, self.member1 = zeros(m, n, _HIDDEN1), _bytes(m, n, _HIDDEN1)
        self.hidden2, self.member2 = zeros(m, n, 400), _bytes(m, n, 400)
        self.grad2 = zeros(m, n, 400)
        self.hidden, self.grad = self.hidden2.transpose(1, 2), self.grad2.transpose(1, 2)
        self.sums = {
            "conv1.weight": zeros(m, 6, 5, 16),
            "conv1.bias": zeros(m, 6),
            "conv2.weight": zeros(m, 16, 5, 32),
            "conv2.bias": zeros(m, 16),
        }

    def start(self, *, backward: bool) -> None:
        """Lay the kernels out."""
        p, m = self.parameters, self.m
        self.own1[:m].copy_(p["conv1.weight"].permute(0, 3, 4, 2, 1))
        self.own_bias1[:m].copy_(p["conv1.bias"])
        blocks = self.own1.view(-1, _NETWORKS, 75, 6).transpose(1, 2)
        self.kernels1[..., : _NETWORKS * 6].unflatten(2, (_NETWORKS, 6)).copy_(blocks)
        self.bias1[:, : _NETWORKS * 6].copy_(self.own_bias1.view(-1, _NETWORKS * 6))
        rows = p["conv2.weight"].permute(0, 1, 3, 4, 2).reshape(m, 16, 5, 30)
        self.back2[..., :30] = rows
        self.kernels2.view(m, 5, 30, 16).copy_(rows.permute(0, 2, 3, 1))
        self.bias2.copy_(p["conv2.bias"])
        if backward:
            for total in self.sums.values():
                total.zero_()

    def forward(self, chunk: int) -> None:
        """See `Convolutions`."""
        outputs = (self.hidden1, self.member1, self.hidden2, self.member2)
        layers = (self.kernels1, self.bias1, self.kernels2, self.bias2)
        _call("forward", self.pixels[chunk], self.n, self.m, *layers, *outputs)

    def backward(self, chunk: int, weights: Tensor) -> None:
        """See `Convolutions`; an image of weight 0 in a network is passed by."""
        hidden = (self.hidden1, self.member1, self.hidden2, self.member2)
        inputs = (weights, self.back2, *hidden, self.grad2)
        _call("backward", self.pixels[chunk], self.n, self.m, *inputs, *self.sums.values())

    def finish(self) -> None:
        """Copy the gradients to where they belong."""
        for name, total in self.sums.items():
            if name.endswith("weight"):
                channels = self.gradients[name].shape[2]
                rows = total[..., : 5 * channels].unflatten(3, (5, channels))
                total = rows.permute(0, 1, 4, 2, 3)
            self.gradients[name].copy_(total)


def _bytes(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int8)


def _call(name: str, *arguments: Tensor | int) -> None:
    """Call a function of the library with tensors, all of which are contiguous, and numbers."""
    values = [
        ctypes.c_long(a) if isinstance(a, int) else ctypes.c_void_p(a.data_ptr()) for a in arguments
    ]
    getattr(_built(), name)(*values)
