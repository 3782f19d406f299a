"""Kernels over an image set, as data: how alike two images are to the closed form.

A kernel first describes some images and then compares two descriptions, so that a few thousand
images are compared pair by pair and tens of thousands with a few hundred landmarks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from taskdisc.errors import ImageSetError, SettingError, did_you_mean
from taskdisc.images import ImageSet
from taskdisc.taskness.features import features, read_array

N_NETWORKS = 32
"""Initialisations over which the tangent kernel is a mean."""

SAMPLE = 1000
"""Images that decide the width of `rbf`, spread evenly over the set; all where there are fewer."""


class Kernel(Protocol):
    """A positive semi-definite comparison of images, on average 1 of an image with itself."""

    def describe(self, positions: np.ndarray) -> Any:
        """What `compare` needs to know of the images at `positions` [n]."""

    def compare(self, a: Any, b: Any) -> np.ndarray:
        """The kernel between two groups of described images, float64 [n_a, n_b]."""


class Linear:
    """Inner products of features [n_images, n_features], divided by the mean squared norm."""

    def __init__(self, x: np.ndarray) -> None:
        self._x = x
        self._scale = max(float((x**2).sum(axis=1, dtype=np.float64).mean()), 1e-12)

    def describe(self, positions: np.ndarray) -> np.ndarray:
        return self._x[positions].astype(np.float64)

    def compare(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a @ b.T / self._scale


class Rbf:
    """exp(−d² / median d²) of features [n_images, n_features]: the median heuristic."""

    def __init__(self, x: np.ndarray) -> None:
        self._x = x
        spread = np.linspace(0, len(x) - 1, min(SAMPLE, len(x))).astype(int)
        sample = self.describe(spread)
        distances = _squared_distances(sample, sample)[~np.eye(len(sample), dtype=bool)]
        self._width = max(float(np.median(distances)) if len(distances) else 1.0, 1e-12)

    def describe(self, positions: np.ndarray) -> np.ndarray:
        return self._x[positions].astype(np.float64)

    def compare(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(_squared_distances(a, b) / -self._width)


class Tangent:
    """The LeNet's empirical tangent kernel at initialisation, a mean over `N_NETWORKS` seeds.

    Inner products of the gradients of the logit difference with respect to the parameters, Jacot
    et al. 2018, "Neural Tangent Kernel", eq. 2, at finite width. The gradient of a fully connected
    layer is the outer product of its input and of its output's gradient, so the inner product of
    two is the product of two short ones, and no gradient of 61,326 entries is ever laid out.

    Args:
        pixels: Standardised pixels [n_images, 3072].
        layers: Names of the layers whose parameters count; all of them by default.
    """

    def __init__(self, pixels: np.ndarray, layers: tuple[str, ...] = ()) -> None:
        self._pixels = pixels
        self._layers = layers
        spread = np.linspace(0, len(pixels) - 1, min(SAMPLE, len(pixels))).astype(int)
        squares = [(a**2).sum(axis=1) * (b**2).sum(axis=1) for a, b in self.describe(spread)]
        self._scale = max(float(np.sum(squares, axis=0).mean()), 1e-12)

    def describe(self, positions: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        images = self._pixels[positions].reshape(-1, 3, 32, 32)
        return [
            pair for seed in range(N_NETWORKS) for pair in _gradients(images, seed, self._layers)
        ]

    def compare(
        self, a: list[tuple[np.ndarray, np.ndarray]], b: list[tuple[np.ndarray, np.ndarray]]
    ) -> np.ndarray:
        total = np.zeros((len(a[0][0]), len(b[0][0])))
        for (a_in, a_out), (b_in, b_out) in zip(a, b, strict=True):
            total += (a_in @ b_in.T) * (a_out @ b_out.T)
        return total / self._scale


class Mean:
    """The mean of some kernels: their features side by side, each with the same weight."""

    def __init__(self, kernels: list[Kernel]) -> None:
        self._kernels = kernels

    def describe(self, positions: np.ndarray) -> list[Any]:
        return [kernel.describe(positions) for kernel in self._kernels]

    def compare(self, a: list[Any], b: list[Any]) -> np.ndarray:
        parts = (k.compare(x, y) for k, x, y in zip(self._kernels, a, b, strict=True))
        return np.asarray(sum(parts) / len(self._kernels))


class Precomputed:
    """A kernel matrix [n_images, n_images] from a `.npy` file.

    Raises:
        SettingError: no such file, no such matrix, or one that is not positive semi-definite.
        ImageSetError: it was not made for as many images.
    """

    def __init__(self, path: str, n_images: int) -> None:
        matrix = read_array(path, "`closed_form.kernel` must be a .npy of numbers [n, n]")
        if matrix.shape != (n_images, n_images):
            raise ImageSetError(
                f"`closed_form.kernel` must have a row and a column for each of the {n_images} "
                f"images, got {list(matrix.shape)} in '{path}'."
            )
        matrix = np.asarray(matrix, dtype=np.float64)  # half precision has no eigenvalues
        scale = float(np.trace(matrix)) / n_images
        if not np.isfinite(matrix).all() or scale <= 0:
            raise ImageSetError(
                "`closed_form.kernel` must be finite numbers with a positive diagonal, "
                f"got others in '{path}'."
            )
        self._matrix = matrix / scale
        skew = float(np.abs(self._matrix - self._matrix.T).max())
        smallest = float(np.linalg.eigvalsh((self._matrix + self._matrix.T) / 2)[0])
        if skew > 1e-4 or smallest < -1e-4:
            what = (
                f"entries that differ from their mirror images by up to {skew * scale:.2g}"
                if skew > 1e-4
                else f"a smallest eigenvalue of {smallest * scale:.2g}"
            )
            raise ImageSetError(
                "`closed_form.kernel` must be symmetric and positive semi-definite, got "
                f"{what} in '{path}'; inner products of features always are."
            )

    def describe(self, positions: np.ndarray) -> np.ndarray:
        return positions

    def compare(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._matrix[np.ix_(a, b)]


MEASURED_ON = "135 labelings of 50 CIFAR-100 images at 1:4"
"""The panel behind `Measured`, with 40 trainings per labeling."""


@dataclass(frozen=True)
class Measured:
    """How a kernel's closed form, at its own ridge, agrees with trained taskness.

    By `taskdisc study closed-form`, a mean over three such panels; see docs/experiments.md.

    Attributes:
        spearman: Rank correlation.
        exponent: Of `calibrated`, least squares.
    """

    spearman: float
    exponent: float


@dataclass(frozen=True)
class Row:
    """One row of `KERNELS`.

    Attributes:
        make: The kernel, from an image set and the name of its features.
        ridge: Its ridge.
        measured: How well that serves, on pixels.
    """

    make: Callable[[ImageSet, str], Kernel]
    ridge: float
    measured: Measured


# Each ridge is the least of 1, 3, 10, 30, 100 whose correlation is within its standard deviation of
# the best (the one-standard-error rule: Breiman et al. 1984, section 3.4.3). More ridge agrees as
# well or better, and finds the same labelings, but draws all scores towards 0.
KERNELS: dict[str, Row] = {
    "linear": Row(lambda images, of: Linear(features(of, images)), 10.0, Measured(0.748, 1.27)),
    "rbf": Row(lambda images, of: Rbf(features(of, images)), 3.0, Measured(0.695, 0.94)),
    "tangent": Row(
        lambda images, of: Tangent(features("pixels", images)), 10.0, Measured(0.842, 4.11)
    ),
    "tangent-fc1": Row(
        lambda images, of: Tangent(features("pixels", images), ("fc1",)),
        10.0,
        Measured(0.851, 2.52),
    ),
    "random": Row(
        lambda images, of: Linear(features("random", images)), 1.0, Measured(0.485, 0.32)
    ),
}
"""By name. The features are those that `linear` and `rbf` compare."""


EMBEDDED = 0.3
"""Ridge on features other than pixels, which tell images apart more sharply; of 0.3, 1 and 3 the
one that recovers most classes of digits on random features, by the study `class-recovery`."""


def make_kernel(name: str, image_set: ImageSet, of: str = "pixels") -> Kernel:
    """The kernel of that name, or the mean of several joined by `+`, such as `linear+tangent`.

    Args:
        name: Keys of `KERNELS`, or the `.npy` file of a kernel matrix.
        image_set: The images.
        of: The features that `linear` and `rbf` compare; see `features`.

    Raises:
        SettingError: no such kernel or features.
        ImageSetError: the features or the matrix do not fit the images.
    """
    kernels: list[Kernel] = [
        KERNELS[part].make(image_set, of) if part in KERNELS else Precomputed(part, len(image_set))
        for part in resolved_kernel(name).split("+")
    ]
    return kernels[0] if len(kernels) == 1 else Mean(kernels)


def ridge_of(name: str, of: str = "pixels") -> float:
    """The ridge of a kernel that is given none: its own on pixels, else `EMBEDDED`; or the mean."""
    own = of == "pixels"
    parts = name.split("+")
    return float(np.mean([KERNELS[p].ridge if own and p in KERNELS else EMBEDDED for p in parts]))


def resolved_kernel(name: str) -> str:
    """The same name with absolute paths, so that a run can be resumed from another folder.

    Raises:
        SettingError: one of its parts is unknown; the nearest valid one is suggested.
    """
    parts = name.split("+")
    for i, part in enumerate(parts):
        if part.endswith(".npy"):
            parts[i] = str(Path(part).expanduser().resolve())
        elif part not in KERNELS:
            raise SettingError(
                "`closed_form.kernel` must be a known kernel, a matrix FILE.npy, or several "
                f"joined by +, got {name!r}; {did_you_mean(part, KERNELS)}"
            )
    return "+".join(parts)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(distances, 0, out=distances)


def _gradients(
    images: np.ndarray, seed: int, layers: tuple[str, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per layer of one network, two matrices whose rows' outer product is an image's gradient.

    Of the `layers`, all if none is named.
    Of a fully connected layer: its input, with a 1 for the bias, and the gradient of its output.
    Of a convolution, whose gradient is a sum over positions: the gradient itself, and ones.
    """
    import torch
    from torch.nn import functional as F
    from torch.nn.utils import vector_to_parameters

    from taskdisc.taskness.lenet import LeNet, initial_parameters

    net = LeNet()
    vector_to_parameters(initial_parameters([seed])[0], net.parameters())
    seen = []
    for name in layers or dict(net.named_children()):
        layer = net.get_submodule(name)
        layer.register_forward_hook(lambda layer, inputs, out: seen.append((layer, inputs[0], out)))
    with torch.enable_grad():
        logits = net(torch.from_numpy(images).float())
        outputs = [out for _, _, out in seen]
        deltas = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), outputs)
    pairs = []
    for (layer, x, _), delta in zip(seen, deltas, strict=True):
        if isinstance(layer, torch.nn.Conv2d):
            patches = F.unfold(x.detach(), layer.kernel_size)  # [n, inputs x 5 x 5, positions]
            maps = delta.flatten(2)
            weight = torch.einsum("nop,nkp->nok", maps, patches).flatten(1)
            a, b = torch.cat([weight, maps.sum(dim=2)], dim=1), torch.ones(len(x), 1)
        else:
            a, b = F.pad(x.detach(), (0, 1), value=1.0), delta
        pairs.append((a.double().numpy(), b.double().numpy()))
    return pairs
