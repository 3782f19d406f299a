"""Train many LeNets at once: one (labeling, split, initialisation) triple each, on the same images.

The gradient is written out by hand, so that each product reuses a buffer that is still in the
cache; `tests/taskness/test_population.py` holds it to autograd on a plain `LeNet`. The convolutions
are in `taskdisc.taskness.convolutions`.

Images are taken in chunks and the gradient is summed over them, which is exact for a full batch:
on a CPU a chunk is small enough for the cache, on a GPU one chunk is the whole image set, so the
number of kernels per step does not grow with the number of networks. Nothing in the step loop
waits for the device.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from taskdisc.taskness import compiled
from taskdisc.taskness.convolutions import Layers, Patches, lay_out
from taskdisc.taskness.lenet import SHAPES, standardised

PATIENCE = 20  # steps without a lower held-out loss after which `fit_early` is done at the earliest
_threshold_backward = torch.ops.aten.threshold_backward.grad_input


_patches_of_worker: dict[tuple[str, str, bool], Patches] = {}


def laid_out(images: np.ndarray, content: str, device: str) -> Patches:
    """The patches of images on a device: laid out once per worker, not per call.

    Args:
        images: uint8 [n_images, 32, 32, 3].
        content: Names them, for no other images.
        device: Where they are to be.
    """
    name = (content, device, compiled.library() is None)
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

    Axes: m networks, n images of a chunk.
    """

    def __init__(
        self, patches: Patches, flat: Tensor, grad: Tensor, labelings: Tensor, weights: Tensor
    ) -> None:
        m, n = flat.shape[0], patches.chunk
        self.m, self.n = m, n
        n_chunks = len(patches.chunks)
        self.n_chunks = n_chunks
        self.parameters, self.gradients = _layers(flat), _layers(grad)
        self.all_gradients = grad
        self.convolutions = patches.convolutions(patches, self.parameters, self.gradients)

        padding = (0, n_chunks * n - patches.n_images)
        one_hot = F.one_hot(labelings.long(), 2).to(flat.dtype).transpose(1, 2)  # [m, 2, image]
        # [chunk, m, 2, n]
        self.targets = F.pad(one_hot, padding).view(m, 2, n_chunks, n).permute(2, 0, 1, 3)
        self.targets = self.targets.contiguous()
        self.weights = self.by_chunk(weights)

    def by_chunk(self, weights: Tensor) -> Tensor:
        """Weights [m, n_images] as [chunk, m, 1, n]; what fills up the last chunk has none."""
        padding = (0, self.n_chunks * self.n - weights.shape[1])
        padded = F.pad(weights.to(self.all_gradients.dtype), padding).view(
            self.m, 1, self.n_chunks, self.n
        )
        return padded.permute(2, 0, 1, 3).contiguous()

    def pass_over(self, losses: Tensor, *, backward: bool) -> None:
        """Write every image's loss [chunk, m, n]; with `backward`, all gradients too."""
        if backward:
            self.all_gradients.zero_()
        self.convolutions.start(backward=backward)
        for chunk in range(self.n_chunks):
            self.convolutions.forward(chunk)
            hidden1, hidden2, logits = self._dense(self.convolutions.hidden)
            log_p = F.log_softmax(logits, dim=1)
            targets = self.targets[chunk]
            torch.sum(log_p * targets, dim=1, out=losses[chunk])
            if backward:
                grad_logits = log_p.exp_().sub_(targets).mul_(self.weights[chunk])
                self._dense_backward(grad_logits, hidden1, hidden2)
                self.convolutions.backward(chunk, self.weights[chunk])
        losses.neg_()
        if backward:
            self.convolutions.finish()

    def _dense(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From what the convolutions make of images to both hidden layers and logits [m, 2, n]."""
        p = self.parameters
        hidden1 = torch.baddbmm(p["fc1.bias"].unsqueeze(2), p["fc1.weight"], hidden).clamp_(0)
        hidden2 = torch.baddbmm(p["fc2.bias"].unsqueeze(2), p["fc2.weight"], hidden1).clamp_(0)
        logits = torch.baddbmm(p["fc3.bias"].unsqueeze(2), p["fc3.weight"], hidden2)
        return hidden1, hidden2, logits

    def _dense_backward(self, grad: Tensor, hidden1: Tensor, hidden2: Tensor) -> None:
        """Add the gradients of the dense layers; leave that of their input."""
        p, g = self.parameters, self.gradients
        for layer, inputs in (("fc3", hidden2), ("fc2", hidden1)):
            g[f"{layer}.weight"].baddbmm_(grad, inputs.transpose(1, 2))
            g[f"{layer}.bias"].add_(grad.sum(2))
            grad = torch.bmm(p[f"{layer}.weight"].transpose(1, 2), grad)
            _threshold_backward(grad, inputs, 0, grad_input=grad)
        g["fc1.weight"].baddbmm_(grad, self.convolutions.hidden.transpose(1, 2))
        g["fc1.bias"].add_(grad.sum(2))
        torch.bmm(p["fc1.weight"].transpose(1, 2), grad, out=self.convolutions.grad)


def _layers(flat: Tensor) -> Layers:
    """Views [n_models, *shape] of the layers in flat parameter vectors [n_models, n_params]."""
    sizes = [torch.Size(shape).numel() for shape in SHAPES.values()]
    parts = flat.split(sizes, dim=1)
    return {
        name: part.view(flat.shape[0], *shape)
        for (name, shape), part in zip(SHAPES.items(), parts, strict=True)
    }
