"""Taskness without training: leave-one-out kernel ridge regression, a quadratic form in the labels.

With K the kernel matrix, C = λ (K + λI)⁻¹ and z the labeling minus its mean, the residual of image
i when the regression is fitted without it is (Cz)_i / C_ii, plus a term for the mean, which is
that of the others (Allen 1974, "The relationship between variable selection and data augmentation";
Rasmussen & Williams 2006, eq. 5.12). So the residuals of all images are one fixed matrix times the
labeling, Az, and their squared sum is z'Qz with Q = A'A. The baseline predicts the mean of the
other labels; at a fixed number of positives its error is a constant. Hence labelings are scored by
one matrix product, and the effect of swapping a positive for a negative follows from Qz alone.

How 1 − error / baseline error relates to taskness: with predictions q + δ of probability around
the rate q of positives, cross-entropy is H(q) − δ (y − q) / (q (1 − q)) + δ² / (2 q (1 − q)) to
second order, and its mean H(q) (1 − R² / (2 H(q))), where R² is 1 − squared error / that of q. So
near 0 taskness is R² / (2 H(q)) with H in nats: 1.00 R² at 1:4, 0.72 R² at 1:1, 1.54 R² at 1:9; and
where a labeling is solved both are 1. `docs/experiments.md` has the relation measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from taskdisc.images import ImageSet
from taskdisc.taskness.kernels import Kernel, described_bytes, make_kernel, ridge_of

MOST_DENSE = 5000
"""Images up to which all pairs are held, 0.2 GB a matrix; above, the form has low rank."""

RANK = 500
"""Rank above `MOST_DENSE` images where none is set.

Of 20 descents on 5,000 CIFAR-100 images the best has, by all pairs, 0.737, 0.738 and 0.738 at rank
250, 500 and 1,000; 0.739 if all pairs are searched.
"""

CHUNK = 2000
"""Images that are compared with the landmarks at a time."""


class Quadratic(Protocol):
    """Q [n_images, n_images], positive semi-definite, without having to hold it."""

    diagonal: np.ndarray  # of Q [n_images]

    def product(self, z: np.ndarray) -> np.ndarray:
        """z Q for rows z [n, n_images]."""

    def columns(self, images: np.ndarray) -> np.ndarray:
        """Rows Q_i of the given images [n], as [n, n_images]."""

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Q_ij for all pairs of rows [n, k] and columns [n, m] of other images, as [n, k, m]."""


class Dense:
    """All pairs of images: memory and time of setting up grow as n_images² and n_images³."""

    def __init__(self, kernel: Kernel, n_images: int, ridge: float) -> None:
        every = kernel.describe(np.arange(n_images))
        matrix = kernel.compare(every, every)
        matrix[np.diag_indices(n_images)] += ridge
        residual = ridge * np.linalg.inv(matrix)  # C
        residual /= np.diag(residual)[:, None].copy()
        residual[np.diag_indices(n_images)] += residual.sum(axis=1) / (n_images - 1)
        self.residual = residual  # A
        self.q = residual.T @ residual
        self.diagonal = np.diag(self.q)

    def product(self, z: np.ndarray) -> np.ndarray:
        return z @ self.q

    def columns(self, images: np.ndarray) -> np.ndarray:
        return self.q[images]

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return self.q[rows[:, :, None], columns[:, None, :]]


class LowRank:
    """The kernel through landmarks: memory n_images · rank, time n_images · rank².

    K is replaced by ΦΦ' with Φ = K_nm K_mm^(-1/2) over m landmark images (Williams & Seeger 2001,
    "Using the Nyström method to speed up kernel machines"). Then C = I − UU' with
    U = Φ (Φ'Φ + λI)^(-1/2) [n_images, rank], A = diag(e) − diag(1/d) UU' with d the diagonal of C
    and e = 1/d + the term for the mean, and Q follows by products with U alone.
    """

    def __init__(self, kernel: Kernel, n_images: int, ridge: float, landmarks: np.ndarray) -> None:
        described = kernel.describe(landmarks)
        root = _inverse_root(kernel.compare(described, described))
        phi = np.empty((n_images, root.shape[1]), dtype=np.float32)
        for start in range(0, n_images, CHUNK):
            part = np.arange(start, min(start + CHUNK, n_images))
            phi[part] = kernel.compare(kernel.describe(part), described) @ root
        gram = (phi.T @ phi).astype(np.float64)
        gram[np.diag_indices(len(gram))] += ridge
        back = np.linalg.inv(np.linalg.cholesky(gram)).T.astype(np.float32)
        for start in range(0, n_images, CHUNK):  # in place: a second U would double the memory
            phi[start : start + CHUNK] = phi[start : start + CHUNK] @ back
        self.u = u = phi
        norms = np.einsum("ij,ij->i", u, u).astype(np.float64)
        d = 1 - norms
        e = (1 + (1 - u @ u.sum(axis=0)) / (n_images - 1)) / d
        self._w = e**2, e / d, 1 / d**2
        self._g = (u.T * self._w[2].astype(np.float32)) @ u
        self.diagonal = (
            self._w[0]
            - 2 * self._w[1] * norms
            + np.einsum("ij,jk,ik->i", u, self._g, u, optimize=True)
        )

    def product(self, z: np.ndarray) -> np.ndarray:
        w0, w1, _ = self._w
        n, w32 = len(z), w1.astype(np.float32)
        z32 = z.astype(np.float32)
        # Both halves in one product each way, for reading U takes as long as multiplying by it. As
        # columns: few rows times a tall matrix is ten times slower in OpenBLAS.
        st = (self.u.T @ np.concatenate([z32, z32 * w32]).T.copy()).T
        s, t = st[:n], st[n:]
        back = (self.u @ np.concatenate([s, s @ self._g - t]).T.copy()).T
        return w0 * z - w32 * back[:n] + back[n:]

    def columns(self, images: np.ndarray) -> np.ndarray:
        w0, w1, _ = self._w
        rows = self.u[images]
        inner = rows @ self.u.T
        out = (rows @ self._g) @ self.u.T - w1 * inner - w1[images][:, None] * inner
        out[np.arange(len(images)), images] += w0[images]
        return out

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        w1 = self._w[1]
        a, b = self.u[rows], self.u[columns].transpose(0, 2, 1)
        weights = w1[rows][:, :, None] + w1[columns][:, None, :]
        return (a @ self._g) @ b - weights * (a @ b)


def quadratic(
    image_set: ImageSet,
    *,
    kernel: str,
    ridge: float | None = None,
    features: str = "pixels",
    rank: int = 0,
    seed: int = 0,
) -> Quadratic:
    """The Q of an image set: dense up to `MOST_DENSE` images unless a rank is given.

    Args:
        image_set: The images.
        kernel: A key of `KERNELS`, or several joined by `+`.
        ridge: λ, where the kernel of an image with itself is 1 on average; by default the
            kernel's own in `KERNELS`.
        features: What the kernels `linear` and `rbf` compare; see `features`.
        rank: Landmarks of the low-rank form; 0: dense where that is possible, else `RANK`.
        seed: Draws the landmarks.

    Raises:
        SettingError: no such kernel or features.
        ImageSetError: the features do not fit the images.
    """
    n = len(image_set)
    ridge = ridge_of(kernel, features) if ridge is None else ridge
    compared = make_kernel(kernel, image_set, features)
    if not rank and n <= MOST_DENSE:
        return Dense(compared, n, ridge)
    landmarks = np.random.default_rng(seed).permutation(n)[: rank or RANK]
    return LowRank(compared, n, ridge, np.sort(landmarks))


def closed_form_taskness(q: Quadratic, labelings: np.ndarray) -> np.ndarray:
    """1 − error / baseline error [n_labelings] of labelings 0/1 [n_labelings, n_images].

    Errors are squared and leave-one-out; the baseline predicts the mean of the other labels.
    0 = no better than it, 1 = solved; a constant labeling scores 0.
    """
    z = labelings - labelings.mean(axis=1, keepdims=True)
    n = labelings.shape[1]
    error = (z * q.product(z)).sum(axis=1)
    baseline = (z**2).sum(axis=1) * (n / (n - 1)) ** 2
    return 1 - np.divide(error, baseline, out=np.ones(len(z)), where=baseline > 0)


def calibrated(closed_form: np.ndarray, exponent: float) -> np.ndarray:
    """The closed form on the scale of trained taskness: 1 − (1 − x)^e, and e x below 0.

    It keeps what both scales share, 0 for no better than blind and 1 for solved, and all ranks. e
    is the slope at 0, where ridge has drawn the closed form further in than training does.
    """
    above = np.clip(closed_form, 0, 1)
    return np.where(closed_form > 0, 1 - (1 - above) ** exponent, exponent * closed_form)


def taskness_on_splits(
    kernel: Kernel, labelings: np.ndarray, ridge: float, masks: np.ndarray
) -> np.ndarray:
    """The same on the splits of a protocol instead of leaving one image out [n_labelings].

    With C = (K + λI)⁻¹ and z the labeling minus its mean on the train split, the residuals on the
    validation split V are C_VV⁻¹ (Cz)_V; one minus their squared sum over that of z_V is averaged
    over the splits. A split belongs to its labeling, so nothing of it serves a search.

    Args:
        kernel: Compares the images.
        labelings: 0/1 [n_labelings, n_images].
        ridge: λ.
        masks: Which images validate, bool [n_labelings, n_splits, n_images].
    """
    n = labelings.shape[1]
    every = kernel.describe(np.arange(n))
    inverse = np.linalg.inv(kernel.compare(every, every) + ridge * np.eye(n))
    scores = np.empty(masks.shape[:2])
    for i, labeling in enumerate(labelings):
        for j, mask in enumerate(masks[i]):
            z = labeling - labeling[~mask].mean()
            residual = np.linalg.solve(inverse[np.ix_(mask, mask)], (inverse @ z)[mask])
            scores[i, j] = 1 - (residual**2).sum() / max(float((z[mask] ** 2).sum()), 1e-12)
    return scores.mean(axis=1)


@dataclass(frozen=True)
class ClosedFormScores:
    """Taskness by the closed form [n_labelings]."""

    taskness: np.ndarray


class ClosedFormScorer:
    """Scores labelings by the closed form, in this process: a search spends milliseconds on it.

    Args:
        q: The form.
        exponent: Of `calibrated`.
    """

    group = 1000

    def __init__(self, q: Quadratic, exponent: float = 1.0) -> None:
        self._q = q
        self._exponent = exponent

    def score_groups(self, groups: list[np.ndarray]) -> Iterator[ClosedFormScores]:
        """Scores of each group of labelings, in order."""
        for labelings in groups:
            taskness = closed_form_taskness(self._q, labelings)
            yield ClosedFormScores(calibrated(taskness, self._exponent))


def memory(n_images: int, kernel: str, rank: int = 0) -> int:
    """Bytes that `quadratic` takes at its peak, features included: pixels and a copy of them.

    Beside them the libraries take up to 0.1 GB whatever the number of images.
    """
    features, each = 2 * 4 * 3072 * n_images, described_bytes(kernel)
    if not rank and n_images <= MOST_DENSE:
        return features + each * n_images + 5 * 8 * n_images**2
    rank = rank or RANK
    return features + each * (rank + CHUNK) + 2 * 4 * n_images * rank


def leading_vectors(
    q: Quadratic, n_images: int, n_vectors: int, rng: np.random.Generator
) -> np.ndarray:
    """The directions [n_vectors, n_images] of least error: Q's smallest eigenvalues, mean 0 each.

    Fewer where there are not as many. Found by products alone (Lanczos), so also at low rank.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    def product(z: np.ndarray) -> np.ndarray:
        z = z.ravel() - z.mean()
        out = q.product(z[None])[0]
        return np.asarray(out - out.mean())

    # The constant direction, of eigenvalue 0 after centring, would come first: it is lifted.
    lift = float(q.diagonal.max()) * 4
    operator = LinearOperator(
        (n_images, n_images),
        matvec=lambda z: product(z) + lift * z.mean() * np.ones(n_images),
        dtype=np.float64,
    )
    count = min(n_vectors, n_images - 1)
    start = rng.standard_normal(n_images)
    _, vectors = eigsh(operator, k=count, which="SA", v0=start, tol=1e-3)
    return np.asarray(vectors.T)


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    """B [m, rank] with B'MB = I on the range of a positive semi-definite M [m, m]."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 1e-7 * values[-1]  # below is the rounding of kernels in float32
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))
