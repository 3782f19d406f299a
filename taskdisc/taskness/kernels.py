"""Kernels over an image set, as data: how alike two images are to the closed form.

A kernel first describes some images and then compares two descriptions, so that a few thousand
images are compared pair by pair and tens of thousands with a few hundred landmarks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from taskdisc.errors import ImageSetError, SettingError, did_you_mean
from taskdisc.files import absolute
from taskdisc.images import ImageSet
from taskdisc.taskness.features import embedding_rows, features, read_array

N_NETWORKS = 32
"""Initialisations over which the tangent kernel is a mean."""

MATRIX = "`closed_form.kernel` must be a .npy of numbers [n, n]"

SAMPLE = 1000
"""Images that decide the width or scale of a kernel, spread evenly over the set; all of fewer."""

BATCH = 25
"""Images that all networks see at a time: their activations stay near a processor's cache."""

STRIP = 500
"""Rows of the tangent kernel that are worked on at a time."""


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
        sample = self.describe(_sample(len(x)))
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
        norms = [
            np.einsum("ij,ij->i", a, a, dtype=np.float64)
            * np.einsum("ij,ij->i", b, b, dtype=np.float64)
            for a, b in self.describe(_sample(len(pixels)))
        ]
        self._scale = max(float(np.sum(norms, axis=0).mean()), 1e-12)

    def describe(self, positions: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for start in range(0, len(positions), BATCH):
            part = slice(start, start + BATCH)
            images = self._pixels[positions[part]].reshape(-1, 3, 32, 32)
            pairs = _gradients(images, N_NETWORKS, self._layers)
            if not found:
                found = [
                    (_rows(len(positions), a.shape[1]), _rows(len(positions), b.shape[1]))
                    for a, b in pairs
                ]
            for rows, values in zip(found, pairs, strict=True):
                rows[0][part], rows[1][part] = values
        return found

    def compare(
        self, a: list[tuple[np.ndarray, np.ndarray]], b: list[tuple[np.ndarray, np.ndarray]]
    ) -> np.ndarray:
        total = np.zeros((len(a[0][0]), len(b[0][0])))
        # Some rows at a time, so that no intermediate product is as large as the result.
        for start in range(0, len(total), STRIP):
            part = slice(start, start + STRIP)
            for (a_in, a_out), (b_in, b_out) in zip(a, b, strict=True):
                product = a_in[part] @ b_in.T
                if a_out.shape[1] > 1:
                    product *= a_out[part] @ b_out.T
                total[part] += product
        total /= self._scale
        return total


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
    """A kernel matrix [n_images, n_images], taken as it is."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = matrix

    @classmethod
    def of(cls, kernel: Kernel, n_images: int) -> "Precomputed":
        """Another kernel, compared once for all that follows."""
        every = kernel.describe(np.arange(n_images))
        return cls(kernel.compare(every, every))

    @classmethod
    def read(cls, path: str, n_images: int) -> "Precomputed":
        """A kernel from a `.npy` file, brought to a mean diagonal of 1.

        Raises:
            SettingError: no such file, or no numbers in it.
            ImageSetError: it is not for as many images, or not positive semi-definite.
        """
        matrix = _square(path, n_images)
        matrix = np.array(matrix, dtype=np.float64)  # half precision has no eigenvalues
        scale = float(np.trace(matrix)) / n_images
        if not np.isfinite(matrix).all() or scale <= 0:
            raise ImageSetError(
                "`closed_form.kernel` must be finite numbers with a positive diagonal, "
                f"got others in '{path}'."
            )
        matrix /= scale
        skew = float(np.abs(matrix - matrix.T).max())
        smallest = float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0])
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
        return cls(matrix)

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
        exponent: Of `calibrated`, least squares on each of the first two panels, their mean.
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
        described: Bytes that the description of an image takes.
    """

    make: Callable[[ImageSet, str], Kernel]
    ridge: float
    measured: Measured
    described: int = 25_000


# Each ridge is the least of 1, 3, 10, 30, 100 whose correlation is within its standard deviation of
# the best (the one-standard-error rule: Breiman et al. 1984, section 3.4.3). More ridge agrees as
# well or better, and finds the same labelings, but draws all scores towards 0.
KERNELS: dict[str, Row] = {
    "linear": Row(lambda images, of: Linear(features(of, images)), 10.0, Measured(0.748, 1.15)),
    "rbf": Row(lambda images, of: Rbf(features(of, images)), 3.0, Measured(0.695, 0.84)),
    "tangent": Row(
        lambda images, of: Tangent(features("pixels", images)),
        10.0,
        Measured(0.842, 4.27),
        described=480_000,
    ),
    "tangent-fc1": Row(
        lambda images, of: Tangent(features("pixels", images), ("fc1",)),
        10.0,
        Measured(0.851, 2.59),
        described=70_000,
    ),
    "random": Row(
        lambda images, of: Linear(features("random", images)), 1.0, Measured(0.485, 0.27)
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
        KERNELS[part].make(image_set, of)
        if part in KERNELS
        else Precomputed.read(part, len(image_set))
        for part in resolved_kernel(name).split("+")
    ]
    return kernels[0] if len(kernels) == 1 else Mean(kernels)


def check_files(name: str, of: str, image_set: ImageSet) -> None:
    """Refuse a kernel or features whose `.npy` file is not of the images; without its numbers.

    Raises:
        SettingError: no such file, or another content.
        ImageSetError: it is of another number of images.
    """
    for path in name.split("+"):
        if path.endswith(".npy"):
            _square(path, len(image_set))
    if of.endswith(".npy"):
        embedding_rows(of, image_set)


def _square(path: str, n_images: int) -> np.ndarray:
    """The matrix [n_images, n_images] in a `.npy` file."""
    matrix = read_array(path, MATRIX)
    if matrix.shape != (n_images, n_images):
        raise ImageSetError(
            f"`closed_form.kernel` must have a row and a column for each of the {n_images} "
            f"images, got {list(matrix.shape)} in '{path}'."
        )
    return matrix


def ridge_of(name: str, of: str = "pixels") -> float:
    """The ridge of a kernel that is given none: its own on pixels, else `EMBEDDED`; or the mean."""
    own = of == "pixels"
    parts = name.split("+")
    return float(np.mean([KERNELS[p].ridge if own and p in KERNELS else EMBEDDED for p in parts]))


def described_bytes(name: str) -> int:
    """Bytes that a kernel keeps of each image that it compares."""
    return sum(KERNELS[part].described for part in name.split("+") if part in KERNELS)


def resolved_kernel(name: str) -> str:
    """The same name with absolute paths, so that a run can be resumed from another folder.

    Raises:
        SettingError: one of its parts is unknown; the nearest valid one is suggested.
    """
    parts = name.split("+")
    for i, part in enumerate(parts):
        if part.endswith(".npy"):
            parts[i] = absolute("closed_form.kernel", part)
        elif part not in KERNELS:
            raise SettingError(
                "`closed_form.kernel` must be a known kernel, a matrix FILE.npy, or several "
                f"joined by +, got {name!r}; {did_you_mean(part, KERNELS)}"
            )
    return "+".join(parts)


def _sample(n_images: int) -> np.ndarray:
    return np.linspace(0, n_images - 1, min(SAMPLE, n_images)).astype(int)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(distances, 0, out=distances)


def _rows(n: int, width: int) -> np.ndarray:
    return np.empty((n, width), dtype=np.float32)


def _gradients(
    images: np.ndarray, n_networks: int, layers: tuple[str, ...] = ()
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per network and layer, two float32 matrices whose rows' outer product is a gradient.

    Of a fully connected layer: its input, with a 1 for the bias, and the gradient of its output.
    Of a convolution, whose gradient is a sum over positions: the gradient itself, and ones.

    Args:
        images: Standardised [n, 3, 32, 32].
        n_networks: The LeNets of the seeds from 0 up, which work side by side.
        layers: Names of layers, all by default; nothing is derived below the first of them.
    """
    import torch
    from torch.nn import functional as F

    weights, n, s = _networks(n_networks), len(images), n_networks
    asked = layers or tuple(name.split(".")[0] for name in weights if name.endswith("weight"))
    seen: dict[str, tuple[Any, Any]] = {}  # layer -> its input and its output

    def through(name: str, x: Any) -> Any:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if name.startswith("conv"):
            groups = 1 if name == "conv1" else s
            out = F.conv2d(x, weight.flatten(0, 1), bias.flatten(), groups=groups)
        else:
            out = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
        if name in asked:
            # Nothing below the first layer asked for needs a gradient, so that is a leaf.
            seen[name] = x.detach(), out.requires_grad_()
        return out

    # One thread: batches are small, and what threads wait for each other would be most of the time.
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.enable_grad():
            x = torch.from_numpy(images).float().contiguous(memory_format=torch.channels_last)
            x = F.relu(F.max_pool2d(through("conv1", x), 2))
            x = F.relu(F.max_pool2d(through("conv2", x), 2))
            x = x.reshape(n, s, -1).transpose(0, 1).contiguous()
            x = F.relu(through("fc2", F.relu(through("fc1", x))))
            logits = through("fc3", x)
            outputs = [out for _, out in seen.values()]
            deltas = torch.autograd.grad((logits[..., 1] - logits[..., 0]).sum(), outputs)
        pairs = []
        for (name, (x, _)), delta in zip(seen.items(), deltas, strict=True):
            if name.startswith("conv"):
                _, _, _, height, width = weights[f"{name}.weight"].shape
                groups = 1 if name == "conv1" else s
                patches = F.unfold(x, (height, width)).reshape(n * groups, -1, delta[0, 0].numel())
                maps = delta.reshape(n * groups, -1, patches.shape[2])
                weight = torch.bmm(maps, patches.transpose(1, 2)).reshape(n, s, -1)
                bias = maps.sum(dim=2).reshape(n, s, -1)
                a, b = torch.cat([weight, bias], dim=2).transpose(0, 1), torch.ones(s, n, 1)
            else:
                a, b = F.pad(x, (0, 1), value=1.0), delta
            pairs.append((a.numpy(), b.numpy()))
    finally:
        torch.set_num_threads(n_threads)
    return [(a[i], b[i]) for i in range(s) for a, b in pairs]


@cache
def _networks(n_networks: int) -> dict[str, Any]:
    """Initial parameters by name, each [n_networks, ...], of the LeNets of the seeds from 0 up."""
    from taskdisc.taskness.lenet import SHAPES, initial_parameters

    flat = initial_parameters(range(n_networks))
    parts = flat.split([int(np.prod(shape)) for shape in SHAPES.values()], dim=1)
    return {
        name: part.reshape(n_networks, *shape)
        for (name, shape), part in zip(SHAPES.items(), parts, strict=True)
    }
