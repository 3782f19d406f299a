"""Train many LeNets at once: one (labeling, split, initialisation) triple each, on the same images.

The images never change, so the patches that the first convolution reads are laid out once and
every network's first layer is one matrix product with them. The images are the innermost axis of
every activation, so pooling is an element-wise maximum and the second convolution five products.
The gradient is written out by hand for the same reason: each product reuses a buffer that is still
in the cache. `tests/taskness/test_population.py` holds it to autograd on a plain `LeNet`.

Images are taken in chunks and the gradient is summed over them, which is exact for a full batch:
on a CPU a chunk is small enough for the cache, on a GPU one chunk is the whole image set, so the
number of kernels per step does not grow with the number of networks. Nothing in the step loop
waits for the device.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from taskdisc.taskness.lenet import SHAPES, standardised

CPU_CHUNK = 25  # images; with 5 to 10 networks the activations of a chunk fit a core's cache
PATIENCE = 20  # steps without a lower held-out loss after which `fit_early` is done at the earliest
_POOLED = 14 * 14  # positions after the first pooling
_threshold_backward = torch.ops.aten.threshold_backward.grad_input


@dataclass(frozen=True)
class Patches:
    """An image set as the first convolution reads it.

    `chunks` is [n_chunks, 75, 4 · 196 · chunk]: the 3·5·5 inputs of each output position. Positions
    are ordered (member of its 2x2 pooling window: 4; pooled row: 14; parity of the pooled column:
    2; half of it: 7; image of the chunk), so that the members of a window are four contiguous
    blocks, and so are, one layer up, the inputs that the members of the next window read.
    """

    chunks: Tensor
    n_images: int

    @property
    def chunk(self) -> int:
        return self.chunks.shape[2] // (4 * _POOLED)


def lay_out(images: Tensor, chunk: int | None = None) -> Patches:
    """Lay out standardised images [n_images, 3, 32, 32]; `chunk` images are processed at a time.

    Memory: 235 kB per image in float32. The last chunk is filled up with zero images of weight 0.
    """
    n_images = images.shape[0]
    if chunk is None:
        n_chunks = -(-n_images // CPU_CHUNK) if images.device.type == "cpu" else 1
        chunk = -(-n_images // n_chunks)
    n_chunks = -(-n_images // chunk)
    padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, n_chunks * chunk - n_images))
    chunks = []
    for block in padded.split(chunk):
        # [image, input, row, row of window, half of column, parity of column, column of window]
        patches = F.unfold(block, 5).view(chunk, 75, 14, 2, 7, 2, 2)
        chunks.append(patches.permute(1, 3, 6, 2, 5, 4, 0).reshape(75, 4 * _POOLED * chunk))
    return Patches(torch.stack(chunks), n_images)


_patches_of_worker: dict[tuple[str, str], Patches] = {}


def laid_out(images: np.ndarray, content: str, device: str) -> Patches:
    """The patches of images on a device: laid out once per worker, not per call.

    Args:
        images: uint8 [n_images, 32, 32, 3].
        content: Names them, for no other images.
        device: Where they are to be.
    """
    name = (content, device)
    if name not in _patches_of_worker:
        _patches_of_worker.clear()  # one image set at a time, so that memory stays bounded
        _patches_of_worker[name] = lay_out(standardised(images).to(device))
    return _patches_of_worker[name]


def train(
    patches: Patches,
    labelings: Tensor,
    train_weights: Tensor,
    parameters: Tensor,
    *,
    n_steps: int = 100,
    lr: float = 1e-3,
) -> Tensor:
    """The loss of `fit` alone, for those who have no use for the networks."""
    return fit(patches, labelings, train_weights, parameters, n_steps=n_steps, lr=lr)[0]


def fit(
    patches: Patches,
    labelings: Tensor,
    train_weights: Tensor,
    parameters: Tensor,
    *,
    n_steps: int = 100,
    lr: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Train `n_models` networks by full-batch Adam: their losses on the way, and what became.

    Args:
        patches: The image set, from `lay_out`.
        labelings: 0/1 integers [n_models, n_images].
        train_weights: Weight of each image in its network's training loss [n_models, n_images]:
            1 / n_train on the train split, 0 elsewhere.
        parameters: Initial parameters [n_models, 61326], from `initial_parameters`; not changed.
        n_steps: Steps of Adam.
        lr: Learning rate of Adam.

    Returns:
        Cross-entropy [nats] of each image under its label [n_steps + 1, n_models, n_images], row t
        after t steps; and the parameters after the last step [n_models, 61326].
    """
    flat, optimiser, population = _started(patches, labelings, train_weights, parameters, lr)
    losses = parameters.new_empty(n_steps + 1, *population.targets.shape[:2], patches.chunk)
    for step in range(n_steps):
        population.pass_over(losses[step], backward=True)
        optimiser.step()
    population.pass_over(losses[n_steps], backward=False)
    # [step, chunk, model, image of chunk] -> [step, model, image]
    per_image = losses.transpose(1, 2).reshape(n_steps + 1, labelings.shape[0], -1)
    return per_image[:, :, : patches.n_images], flat.detach()


def _started(
    patches: Patches, labelings: Tensor, train_weights: Tensor, parameters: Tensor, lr: float
) -> "tuple[Tensor, torch.optim.Optimizer, _Population]":
    """A copy of the parameters, with their optimiser and the networks that have them."""
    flat = torch.nn.Parameter(parameters.clone())
    flat.grad = torch.zeros_like(flat)
    # One fused pass over all parameters of all networks; `capturable` bookkeeping is not needed.
    optimiser = torch.optim.Adam([flat], lr=lr, fused=True)
    return flat, optimiser, _Population(patches, flat.data, flat.grad, labelings, train_weights)


def fit_early(
    patches: Patches,
    labelings: Tensor,
    train_weights: Tensor,
    held_out_weights: Tensor,
    parameters: Tensor,
    *,
    n_steps: int = 100,
    lr: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Train as `fit` does, and keep every network as it was when its held-out loss was lowest.

    A network is done once it has not improved for `PATIENCE` steps, or for half as many as it took
    to its best; what it becomes does not depend on the networks that are trained beside it.

    Args:
        patches: The image set, from `lay_out`.
        labelings: 0/1 integers [n_models, n_images].
        train_weights: Weight of each image in its network's training loss [n_models, n_images].
        held_out_weights: The same of the loss that decides when to stop.
        parameters: Initial parameters [n_models, 61326]; not changed.
        n_steps: Steps of Adam at most.
        lr: Learning rate of Adam.

    Returns:
        Steps after which each network was kept [n_models], and its parameters then
        [n_models, 61326].
    """
    flat, optimiser, population = _started(patches, labelings, train_weights, parameters, lr)
    deciding = population.by_chunk(held_out_weights)[:, :, 0]
    losses = torch.empty_like(deciding)  # [chunk, model, image of chunk]
    kept = parameters.clone()
    lowest = parameters.new_full((len(parameters),), torch.inf)
    best = torch.zeros_like(lowest, dtype=torch.int64)
    for step in range(n_steps + 1):
        population.pass_over(losses, backward=step < n_steps)
        held_out = (losses * deciding).sum((0, 2))
        going_on = step - best <= (best // 2).clamp(min=PATIENCE)
        better = going_on & (held_out < lowest)
        kept = torch.where(better[:, None], flat.data, kept)
        lowest = torch.where(better, held_out, lowest)
        best = torch.where(better, step, best)
        # Now and then, for asking makes a GPU wait.
        if step % 10 == 9 and not going_on.any():
            break
        optimiser.step()
    return best, kept


def positive_probability(patches: Patches, parameters: Tensor) -> Tensor:
    """What networks say of images: the probability of a positive [n_models, n_images].

    Args:
        patches: The images, from `lay_out`; not only those that the networks were trained on.
        parameters: Parameters [n_models, 61326], from `fit`; not changed.
    """
    # The loss of an image that is called positive is −log p(positive).
    positive = parameters.new_ones(len(parameters), patches.n_images)
    losses = train(patches, positive, torch.zeros_like(positive), parameters, n_steps=0)
    return losses[0].neg().exp()


class _Population:
    """The buffers of one population, and the forward and backward pass through them.

    Axes: m networks, n images of a chunk. Column axes of length 14 and 10 are split into
    (parity, half), see `Patches`.
    """

    def __init__(
        self, patches: Patches, flat: Tensor, grad: Tensor, labelings: Tensor, weights: Tensor
    ) -> None:
        m, n = flat.shape[0], patches.chunk
        self.m, self.n = m, n
        self.patches = list(patches.chunks)
        n_chunks = len(self.patches)
        self.parameters, self.gradients = _layers(flat), _layers(grad)
        self.all_gradients = grad

        padding = (0, n_chunks * n - patches.n_images)
        one_hot = F.one_hot(labelings.long(), 2).to(flat.dtype).transpose(1, 2)  # [m, 2, image]
        # [chunk, m, 2, n]
        self.targets = F.pad(one_hot, padding).view(m, 2, n_chunks, n).permute(2, 0, 1, 3)
        self.targets = self.targets.contiguous()
        self.weights = self.by_chunk(weights)

        # Every large array exists once and is written in place: fresh ones would cost page faults.
        empty = flat.new_empty
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
        self.act2 = empty(m, 400, n)
        self.grad2 = empty(m, 400, n)
        self.kernels2 = empty(5, m, 16, 30)  # by row of the kernel: [row, m, out, (column, in)]
        self.grad_kernels2 = empty(5, m, 16, 30)
        self.grad_kernels1 = empty(m * 6, 75)

    def by_chunk(self, weights: Tensor) -> Tensor:
        """Weights [m, n_images] as [chunk, m, 1, n]; what fills up the last chunk has none."""
        n_chunks = len(self.patches)
        padding = (0, n_chunks * self.n - weights.shape[1])
        padded = F.pad(weights.to(self.all_gradients.dtype), padding).view(
            self.m, 1, n_chunks, self.n
        )
        return padded.permute(2, 0, 1, 3).contiguous()

    def pass_over(self, losses: Tensor, *, backward: bool) -> None:
        """Write every image's loss [chunk, m, n]; with `backward`, all gradients too."""
        m = self.m
        kernels1 = self.parameters["conv1.weight"].reshape(m * 6, 75)
        kernels2 = self.parameters["conv2.weight"].permute(3, 0, 1, 4, 2)
        self.kernels2.view(5, m, 16, 5, 6).copy_(kernels2)
        if backward:
            self.all_gradients.zero_()
            self.grad_kernels1.zero_()
            self.grad_kernels2.zero_()
        for chunk, patches in enumerate(self.patches):
            torch.mm(kernels1, patches, out=self.conv1)
            hidden1, hidden2, logits = self._forward()
            log_p = F.log_softmax(logits, dim=1)
            targets = self.targets[chunk]
            torch.sum(log_p * targets, dim=1, out=losses[chunk])
            if backward:
                grad_logits = log_p.exp_().sub_(targets).mul_(self.weights[chunk])
                self._backward(grad_logits, hidden1, hidden2)
                self.grad_kernels1.addmm_(self.conv1, patches.t())
        losses.neg_()
        if backward:
            self.gradients["conv1.weight"].copy_(self.grad_kernels1.view(m, 6, 3, 5, 5))
            grad_kernels2 = self.grad_kernels2.view(5, m, 16, 5, 6).permute(1, 2, 4, 0, 3)
            self.gradients["conv2.weight"].copy_(grad_kernels2)

    def _forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """From the first convolution's output to both hidden layers and the logits [m, 2, n]."""
        m, n, p = self.m, self.n, self.parameters
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
        torch.add(pooled2, bias2, out=self.act2.view(m, 16, -1)).clamp_(min=0)
        hidden1 = torch.baddbmm(p["fc1.bias"].unsqueeze(2), p["fc1.weight"], self.act2).clamp_(0)
        hidden2 = torch.baddbmm(p["fc2.bias"].unsqueeze(2), p["fc2.weight"], hidden1).clamp_(0)
        logits = torch.baddbmm(p["fc3.bias"].unsqueeze(2), p["fc3.weight"], hidden2)
        return hidden1, hidden2, logits

    def _backward(self, grad: Tensor, hidden1: Tensor, hidden2: Tensor) -> None:
        """Add the gradients of all layers but conv1's kernels; leave conv1's output gradient."""
        m, p, g = self.m, self.parameters, self.gradients
        for layer, inputs in (("fc3", hidden2), ("fc2", hidden1)):
            g[f"{layer}.weight"].baddbmm_(grad, inputs.transpose(1, 2))
            g[f"{layer}.bias"].add_(grad.sum(2))
            grad = torch.bmm(p[f"{layer}.weight"].transpose(1, 2), grad)
            _threshold_backward(grad, inputs, 0, grad_input=grad)
        g["fc1.weight"].baddbmm_(grad, self.act2.transpose(1, 2))
        g["fc1.bias"].add_(grad.sum(2))
        torch.bmm(p["fc1.weight"].transpose(1, 2), grad, out=self.grad2)
        _threshold_backward(self.grad2, self.act2, 0, grad_input=self.grad2)
        g["conv2.bias"].add_(self.grad2.view(m, 16, -1).sum(2))

        _unpool(self.conv2_window, self.max2, self.grad2.view_as(self.max2))
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


def _layers(flat: Tensor) -> dict[str, Tensor]:
    """Views [n_models, *shape] of the layers in flat parameter vectors [n_models, n_params]."""
    sizes = [torch.Size(shape).numel() for shape in SHAPES.values()]
    parts = flat.split(sizes, dim=1)
    return {
        name: part.view(flat.shape[0], *shape)
        for (name, shape), part in zip(SHAPES.items(), parts, strict=True)
    }


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
