"""Swap search: exchanging positives for negatives while a quadratic form falls.

At a fixed number of positives every labeling is reached from every other by swaps of a positive
for a negative. With z the labeling, a swap of i for j changes z'Qz by
2 ((Qz)_j − (Qz)_i) + Q_ii + Q_jj − 2 Q_ij, so that Qz says what every swap would bring.
"""

import numpy as np

from taskdisc.taskness.closed_form import LowRank, Quadratic

SHORTLIST = 16
"""Positives and negatives that are most promising without their Q_ij; only these form pairs."""

TABU = 20
"""Swaps without a better labeling after which a search that goes on beyond an optimum gives up."""

WEIGHT = 2.0
"""What sharing all positives with a labeling to stay away from costs, in baseline errors."""


class Avoiding:
    """A form plus a penalty of w · ((t · y) / n_pos)² for each labeling t to stay away from.

    y is the labeling itself, so at 1:R the penalty grows from no positives in common, or from the
    `share` of them given, in both directions; at 1:1, where t stands for ±1, from half of them.
    """

    def __init__(
        self, q: Quadratic, away: np.ndarray, weight: float = WEIGHT, share: float = 0.0
    ) -> None:
        n_images, n_pos = away.shape[1], int(away[0].sum()) if len(away) else 1
        # t · y is n_pos where all are in common, so t − share is 0 where that share is.
        signed = 2.0 * away - 1 if 2 * n_pos == n_images else away - share
        baseline = n_pos * (1 - n_pos / n_images)
        self._q = q
        self._t = signed * (np.sqrt(weight * baseline) / n_pos)
        self.diagonal = q.diagonal + (self._t**2).sum(axis=0)

    def half_gradient(self, y: np.ndarray) -> np.ndarray:
        """Half of the gradient at labelings y [n, n_images]; the value is its product with y.

        Q's part is centred: a constant changes no swap, and without it the product with y is z'Qz.
        """
        return _centred(self._q.product(_centred(y))) + (y @ self._t.T) @ self._t

    def exchanged(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """What taking the images j [n] for i [n] adds to the half gradient, [n, n_images]."""
        change = self._q.columns(j)  # indexing by an array copies
        change -= self._q.columns(i)
        if len(self._t):
            change += (self._t[:, j] - self._t[:, i]).T @ self._t
        return change

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """As of `Quadratic`."""
        a, b = self._t.T[rows], self._t.T[columns].transpose(0, 2, 1)
        return self._q.entries(rows, columns) + a @ b


def descend(
    q: Quadratic,
    labelings: np.ndarray,
    away: np.ndarray | None = None,
    weight: float = WEIGHT,
    share: float = 0.0,
) -> np.ndarray:
    """Where swap search from each labeling ends, uint8 [n_labelings, n_images]; all at once.

    With all pairs of images at hand: the best swap among the most promising, one after the other,
    and beyond a local optimum the least bad one, where an image that moved may not move back for a
    while (tabu search: Glover 1989); it ends with the best labeling on its way, once no such swap,
    of images that had to stay included, makes that better. For a form of low rank, where
    single swaps cost as much as many: the most promising swaps together, half as many whenever that
    fails, down to one.

    Args:
        q: The form.
        labelings: Starts, 0/1 [n_labelings, n_images], all with as many positives.
        away: Labelings to stay away from [n_away, n_images]; their nearness is penalised.
        weight: How much, see `WEIGHT`.
        share: Of the positives in common with each, that costs nothing; at 1:1 it is half of them.
    """
    y = labelings.astype(bool)
    form = Avoiding(q, np.empty((0, y.shape[1])) if away is None else away, weight, share)
    if isinstance(q, LowRank):
        return _blocks(form, y).astype(np.uint8)
    best = _steepest(form, y, tabu=TABU, tenure=max(2, int(y[0].sum()) // 4))
    return _steepest(form, best, tabu=1, tenure=0).astype(np.uint8)


def _blocks(q: Avoiding, y: np.ndarray) -> np.ndarray:
    """Swap the m most promising images on each side at once, m halving whenever that fails."""
    y = y.copy()
    n_pos = int(y[0].sum())
    size = np.full(len(y), max(min(n_pos, y.shape[1] - n_pos) // 2, 1))
    qz = q.half_gradient(y)
    value = (y * qz).sum(axis=1)
    while (active := np.flatnonzero(size)).size:
        now, m = y[active], size[active]
        leaves, enters = _prospects(q, now, qz[active])
        widest = int(m.max())
        trial = now.copy()
        for prospects, label in ((leaves, False), (enters, True)):
            best = np.argpartition(prospects, widest - 1, axis=1)[:, :widest]
            order = np.argsort(np.take_along_axis(prospects, best, axis=1), axis=1, kind="stable")
            best = np.take_along_axis(best, order, axis=1)
            rows, columns = np.nonzero(np.arange(widest) < m[:, None])
            trial[rows, best[rows, columns]] = label
        qz_trial = q.half_gradient(trial)
        value_trial = (trial * qz_trial).sum(axis=1)
        better = value_trial < value[active] - 1e-9
        kept = active[better]
        y[kept], qz[kept], value[kept] = trial[better], qz_trial[better], value_trial[better]
        size[active[~better]] //= 2
    return y


def _steepest(q: Avoiding, y: np.ndarray, tabu: int, tenure: int) -> np.ndarray:
    """One best swap after the other, until `tabu` of them have found nothing better.

    An image that moved stays for `tenure` swaps.
    """
    n_images, n_pos = y.shape[1], int(y[0].sum())
    k, m = min(SHORTLIST, n_pos), min(SHORTLIST, n_images - n_pos)
    rows = np.arange(len(y))
    y, best = y.copy(), y.copy()
    qz = q.half_gradient(y)
    gained, best_gained, stale = np.zeros(len(y)), np.zeros(len(y)), np.zeros(len(y), dtype=int)
    free_at = np.zeros(y.shape, dtype=np.int32)
    step = 0
    while rows.size:
        step += 1
        leaves, enters = _prospects(q, y[rows], qz[rows])
        blocked = free_at[rows] > step
        leaves[blocked] = enters[blocked] = np.inf
        p = np.argpartition(leaves, k - 1, axis=1)[:, :k]
        e = np.argpartition(enters, m - 1, axis=1)[:, :m]
        change = (
            np.take_along_axis(leaves, p, axis=1)[:, :, None]
            + np.take_along_axis(enters, e, axis=1)[:, None, :]
            - 2 * q.entries(p, e)
        ).reshape(len(rows), -1)
        chosen = change.argmin(axis=1)
        change = np.take_along_axis(change, chosen[:, None], axis=1)[:, 0]
        go = np.isfinite(change)  # else all that could move has just moved
        rows, p, e, chosen, change = rows[go], p[go], e[go], chosen[go], change[go]
        i = p[np.arange(len(rows)), chosen // m]
        j = e[np.arange(len(rows)), chosen % m]
        y[rows, i], y[rows, j] = False, True
        qz[rows] += q.exchanged(i, j)
        free_at[rows, i] = free_at[rows, j] = step + tenure
        gained[rows] += change
        better = gained[rows] < best_gained[rows] - 1e-9
        best[rows[better]], best_gained[rows[better]] = y[rows[better]], gained[rows[better]]
        stale[rows] = np.where(better, 0, stale[rows] + 1)
        rows = rows[stale[rows] < tabu]
    return best


def _prospects(q: Avoiding, y: np.ndarray, qz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What turning each positive, and each negative, changes alone; infinite for the others."""
    return np.where(y, q.diagonal - 2 * qz, np.inf), np.where(y, np.inf, q.diagonal + 2 * qz)


def _centred(y: np.ndarray) -> np.ndarray:
    return y - y.mean(axis=1, keepdims=True)
