"""Where points go on a map so that they are as far apart as they should be."""

import numpy as np

_STEPS = 300
"""Steps of SMACOF; each lowers the stress, and the maps of 64 points stop moving before."""


def plane(distances: np.ndarray) -> np.ndarray:
    """Points [n, 2] whose distances from each other are near those of a matrix [n, n].

    Metric multidimensional scaling: classical scaling, then SMACOF (de Leeuw 1977). Classical
    scaling alone is a projection, and tasks that all differ by about as much, as those of a search
    do, come to lie on top of each other in one.
    """
    n = len(distances)
    if n < 2:
        return np.zeros((n, 2))
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centre @ distances**2 @ centre / 2)
    points = np.zeros((n, 2))
    points[:] = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :2]
    # Points that coincide would never part; a little noise, always the same, lets them.
    points += np.random.default_rng(0).normal(scale=1e-3 * distances.max(), size=points.shape)
    for _ in range(_STEPS):
        apart = _apart(points)
        pull = np.divide(distances, apart, out=np.zeros_like(apart), where=apart > 1e-12)
        points = (pull.sum(axis=1)[:, None] * points - pull @ points) / n
    points -= points.mean(axis=0)
    _, _, axes = np.linalg.svd(points)
    turned = points @ axes.T  # the longer side lies flat
    signs = np.sign(turned[np.abs(turned).argmax(axis=0), [0, 1]])
    return turned * np.where(signs == 0, 1, signs)


def stress(distances: np.ndarray, points: np.ndarray) -> float:
    """How wrong a map is: Kruskal's stress 1, a relative error of its distances."""
    total = float((distances**2).sum())
    return float(np.sqrt(((distances - _apart(points)) ** 2).sum() / total)) if total else 0.0


def _apart(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)
