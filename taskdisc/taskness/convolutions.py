"""Both convolutions of many LeNets on the same images, with bias, ReLU and pooling, in PyTorch.

The images never change, so the patches that the first convolution reads are laid out once and
every network's first layer is one matrix product with them. The images are the innermost axis of
every activation, so pooling is an element-wise maximum and the second convolution five products.
On a CPU in float32 the same is done by `taskdisc.taskness.compiled` where it was built.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from taskdisc.taskness import compiled

CPU_CHUNK = 25  # images; with 5 to 10 networks the activations of a chunk fit a core's cache
_POOLED = 14 * 14  # positions after the first pooling
_threshold_backward = torch.ops.aten.threshold_backward.grad_input

Layers = dict[str, Tensor]
"""Parameters, or gradients, of m networks by name of the layer, [m, *shape], see `SHAPES`."""


class Convolutions(Protocol):
    """From images to what the first dense layer reads, and the gradients on the way back."""

    hidden: Tensor
    """What `forward` wrote [m, 400, n]."""
    grad: Tensor
    """Of `hidden`, behind its ReLU [m, 400, n]: written by the caller, used up by `backward`."""

    def __init__(self, patches: "Patches", parameters: Layers, gradients: Layers) -> None: ...

    def start(self, *, backward: bool) -> None:
        """Read the parameters, as a pass over all chunks begins."""

    def forward(self, chunk: int) -> None:
        """Take the images of a chunk."""

    def backward(self, chunk: int, weights: Tensor) -> None:
        """Add the gradients of the chunk that `forward` took last; weights [m, 1, n]."""

    def finish(self) -> None:
        """Write the gradients, as a pass with `backward` ends."""


@dataclass(frozen=True)
class Patches:
    """An image set as the first convolution reads it, in chunks that are processed at a time.

    Attributes:
        chunks: In PyTorch [n_chunks, 75, 4 · 196 · chunk]: the 3·5·5 inputs of each output
            position. Positions are ordered (member of its 2x2 pooling window: 4; pooled row: 14;
            parity of the pooled column: 2; half of it: 7; image of the chunk), so that the members
            of a window are four contiguous blocks, and so are, one layer up, the inputs that the
            members of the next window read. Compiled: the pixels [n_chunks, chunk, 3088].
        n_images: Without those that fill up the last chunk.
        chunk: Images of a chunk.
        convolutions: What reads them.
    """

    chunks: Tensor
    n_images: int
    chunk: int
    convolutions: type[Convolutions]


def lay_out(images: Tensor, chunk: int | None = None) -> Patches:
    """Lay out standardised images [n_images, 3, 32, 32]; `chunk` images are processed at a time.

    Memory per image in float32: 12 kB compiled, 235 kB in PyTorch. The last chunk is filled up
    with zero images of weight 0.
    """
    n_images = images.shape[0]
    if chunk is None:
        n_chunks = -(-n_images // CPU_CHUNK) if images.device.type == "cpu" else 1
        chunk = -(-n_images // n_chunks)
    n_chunks = -(-n_images // chunk)
    padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, n_chunks * chunk - n_images))
    if compiled.takes(images):
        chunks = compiled.pixels(padded).view(n_chunks, chunk, -1)
        return Patches(chunks, n_images, chunk, compiled.CompiledConvolutions)
    blocks = []
    for block in padded.split(chunk):
        # [image, input, row, row of window, half of column, parity of column, column of window]
        patches = F.unfold(block, 5).view(chunk, 75, 14, 2, 7, 2, 2)
        blocks.append(patches.permute(1, 3, 6, 2, 5, 4, 0).reshape(75, 4 * _POOLED * chunk))
    return Patches(torch.stack(blocks), n_images, chunk, PlainConvolutions)


class PlainConvolutions:
    """The convolutions by matrix products; the gradient is written out by hand.

    Axes: m networks, n images of a chunk. Column axes of length 14 and 10 are split into
    (parity, half), see `Patches`.
    """

    def __init__(self, patches: Patches, parameters: Layers, gradients: Layers) -> None:
        m, n = len(parameters["conv1.bias"]), patches.chunk
        self.m, self.n = m, n
        self.patches = list(patches.chunks)
        self.parameters, self.gradients = parameters, gradients
        # Every large array exists once and is written in place: fresh ones would cost page faults.
        empty = patches.chunks.new_empty
        self.conv1 = empty(m * 6, 4 * _POOLED * n)
        self.conv1_window = list(self.conv1.split(_POOLED * n, dim=1))
        self.max1 = empty(m * 6, _POOLED * n)
        self.act1 = empty(m * 6, _POOLED * n)
        self.grad1 = empty(m * 6, _POOLED * n)
        # The second convolution's inputs, shifted along the columns: [m, shift, channel, row, …].
        self.shifted = empty(m, 5, 6, 14, 2, 5, n)
        self.grad_shifted = empty(m, 5, 6, 14, 2, 5, n)
        act1 = self.act1.view(m, 6, 14, 2, 7, n)
        grad1 = self.grad1.view(m, 6, 14, 2, 7, n)
        self.shifts = _shifts(act1, self.shifted)
        self.grad_shifts = _shifts(grad1, self.grad_shifted)
        # … and along the rows, where a shift is a contiguous slice: five [m, 30, 100 · n].
        self.rows = _row_shifts(self.shifted)
        self.grad_rows = _row_shifts(self.grad_shifted)
        self.conv2 = empty(m, 16, 100 * n)
        windows = self.conv2.view(m, 16, 5, 2, 2, 5, n)
        self.conv2_window = [windows[:, :, :, i, j] for i in (0, 1) for j in (0, 1)]
        self.max2 = empty(m, 16, 5, 5, n)
        self.scratch2 = empty(m, 16, 5, 5, n)
        self.hidden = empty(m, 400, n)
        self.grad = empty(m, 400, n)
        self.kernels2 = empty(5, m, 16, 30)  # by row of the kernel: [row, m, out, (column, in)]
        self.grad_kernels2 = empty(5, m, 16, 30)
        self.grad_kernels1 = empty(m * 6, 75)

    def start(self, *, backward: bool) -> None:
        """Copy the second convolution's kernels by row."""
        kernels2 = self.parameters["conv2.weight"].permute(3, 0, 1, 4, 2)
        self.kernels2.view(5, self.m, 16, 5, 6).copy_(kernels2)
        if backward:
            self.grad_kernels1.zero_()
            self.grad_kernels2.zero_()

    def forward(self, chunk: int) -> None:
        """See `Convolutions`."""
        m, n, p = self.m, self.n, self.parameters
        kernels1 = p["conv1.weight"].reshape(m * 6, 75)
        torch.mm(kernels1, self.patches[chunk], out=self.conv1)
        # Pooling before bias and ReLU gives the same numbers for a quarter of the work.
        _maximum(self.conv1_window, self.max1, self.act1)
        bias1 = p["conv1.bias"].unsqueeze(2)
        torch.add(self.max1.view(m, 6, -1), bias1, out=self.act1.view(m, 6, -1)).clamp_(min=0)
        for source, target in self.shifts:
            target.copy_(source)
        torch.bmm(self.kernels2[0], self.rows[0], out=self.conv2)
        for kernel, rows in zip(self.kernels2[1:], self.rows[1:], strict=True):
            self.conv2.baddbmm_(kernel, rows)
        _maximum(self.conv2_window, self.max2, self.scratch2)
        pooled2 = self.max2.view(m, 16, 25 * n)
        bias2 = p["conv2.bias"].unsqueeze(2)
        torch.add(pooled2, bias2, out=self.hidden.view(m, 16, -1)).clamp_(min=0)

    def backward(self, chunk: int, weights: Tensor) -> None:
        """See `Convolutions`; the weights are in the gradient already."""
        m, g = self.m, self.gradients
        _threshold_backward(self.grad, self.hidden, 0, grad_input=self.grad)
        g["conv2.bias"].add_(self.grad.view(m, 16, -1).sum(2))

        _unpool(self.conv2_window, self.max2, self.grad.view_as(self.max2))
        self.grad_shifted.zero_()
        for row, (rows, grad_rows) in enumerate(zip(self.rows, self.grad_rows, strict=True)):
            self.grad_kernels2[row].baddbmm_(self.conv2, rows.transpose(1, 2))
            grad_rows.baddbmm_(self.kernels2[row].transpose(1, 2), self.conv2)
        self.grad1.zero_()
        for target, source in self.grad_shifts:
            target.add_(source)
        _threshold_backward(self.grad1, self.act1, 0, grad_input=self.grad1)
        g["conv1.bias"].add_(self.grad1.view(m, 6, -1).sum(2))
        _unpool(self.conv1_window, self.max1, self.grad1)
        self.grad_kernels1.addmm_(self.conv1, self.patches[chunk].t())

    def finish(self) -> None:
        """Copy the kernels' gradients to where they belong."""
        m = self.m
        self.gradients["conv1.weight"].copy_(self.grad_kernels1.view(m, 6, 3, 5, 5))
        grad_kernels2 = self.grad_kernels2.view(5, m, 16, 5, 6).permute(1, 2, 4, 0, 3)
        self.gradients["conv2.weight"].copy_(grad_kernels2)


def _shifts(unshifted: Tensor, shifted: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs of views: column c + shift of `unshifted` beside column c of `shifted[:, shift]`.

    Columns are stored as (parity, half), so an even shift moves both parities alike and an odd one
    exchanges them.
    """
    pairs = []
    for shift in range(5):
        half, odd = divmod(shift, 2)
        if odd:
            pairs.append((unshifted[..., 1, half : half + 5, :], shifted[:, shift, ..., 0, :, :]))
            pairs.append(
                (unshifted[..., 0, half + 1 : half + 6, :], shifted[:, shift, ..., 1, :, :])
            )
        else:
            pairs.append((unshifted[..., half : half + 5, :], shifted[:, shift]))
    return pairs


def _row_shifts(shifted: Tensor) -> list[Tensor]:
    """Five views [m, 30, 100 · n]: rows r + shift of `shifted`, for output rows r = 0 … 9."""
    m, n = shifted.shape[0], shifted.shape[-1]
    flat = shifted.view(m, 30, 140 * n)
    return [flat[:, :, shift * 10 * n : (shift + 10) * 10 * n] for shift in range(5)]


def _maximum(window: list[Tensor], out: Tensor, scratch: Tensor) -> None:
    """The maximum over the four members of every pooling window."""
    torch.maximum(window[0], window[1], out=out)
    torch.maximum(window[2], window[3], out=scratch)
    torch.maximum(out, scratch, out=out)


def _unpool(window: list[Tensor], maximum: Tensor, grad: Tensor) -> None:
    """Overwrite each member with its gradient: all of `grad` to the first that is the maximum.

    `grad` is used up. Members are compared by their difference to the maximum, which is exactly 0
    for the maximum; the threshold is the largest float below 0.
    """
    for member in window[:3]:
        member.sub_(maximum)
        _threshold_backward(grad, member, -1e-45, grad_input=member)
        grad.sub_(member)
    window[3].copy_(grad)
