"""Auxiliary gradients by their similarity to the main one."""

from abc import abstractmethod

import torch
from torch import Tensor

from taskdisc.mtl.weightings.base import MainWeighting, Step, Update, of_weights, ratio


class BySimilarity(MainWeighting):
    """The main task's gradient, and of each auxiliary the share that its similarity to it gives.

    Du et al. 2018, "Adapting Auxiliary Losses Using Gradient Similarity". An auxiliary counts
    nothing where its gradient or the main one is 0, so that critical points of the main loss stay.
    """

    @abstractmethod
    def share(self, dot: Tensor, main: Tensor, other: Tensor) -> Tensor:
        """Shares in [0, 1] of tasks with inner products `dot` with the main gradient.

        Args:
            dot: [n_tasks].
            main: The main gradient's norm, above 0.
            other: Norms of the tasks' gradients [n_tasks].
        """

    @torch.no_grad()
    def update(self, step: Step) -> Update:
        gramian = step.gramian
        norms = gramian.diagonal().clamp(min=0).sqrt()
        shares = self.share(gramian[self.main], norms[self.main], norms)
        shares = torch.where((norms > 0) & (norms[self.main] > 0), shares, 0.0)
        shares[self.main] = 1.0
        return of_weights(shares)


class WeightedCosine(BySimilarity):
    """max(0, cos)."""

    def share(self, dot: Tensor, main: Tensor, other: Tensor) -> Tensor:
        return cosine(dot, main, other).clamp(min=0)


class UnweightedCosine(BySimilarity):
    """1 where cos ≥ 0, else 0; the paper's formula (sign(cos) + 1) / 2 is a half at exactly 0."""

    def share(self, dot: Tensor, main: Tensor, other: Tensor) -> Tensor:
        return (dot >= 0).to(dot)


class Tanimoto(BySimilarity):
    """max(0, a·b / (|a|² + |b|² − a·b)): as the weighted cosine, but also less for other lengths.

    It is 1 only for equal gradients. Not in the paper.
    """

    def share(self, dot: Tensor, main: Tensor, other: Tensor) -> Tensor:
        return ratio(dot, main**2 + other**2 - dot).clamp(0, 1)


def cosine(dot: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The cosine in [−1, 1] of vectors with inner product `dot` and norms `a` and `b`; 0 of 0."""
    return ratio(ratio(dot, a), b).clamp(-1, 1)
