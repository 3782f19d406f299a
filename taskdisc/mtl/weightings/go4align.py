"""Group optimisation for multi-task alignment."""

import torch
from torch import Tensor

from taskdisc.mtl.weightings.base import Setup, Step, Update, Weighting, ratio


class GroupAlignment(Weighting):
    """Tasks at similar risk share a weight: Σ w L with w the mean over each task's group.

    Shen et al. 2024: indicators p ← p exp(−sL) / Σ p exp(−sL), from equal ones; risks
    p_i (Σ L) / L_i; groups by k-means of the risks. With one group per task Σ w L = Σ L.

    Args:
        setup: For what it is made.
        n_groups: At most that many groups.
        rate: s.
    """

    indicators: Tensor

    def __init__(self, setup: Setup, n_groups: int, rate: float) -> None:
        super().__init__(setup)
        self.n_groups = n_groups
        self.rate = rate
        n = setup.n_tasks
        self.register_buffer("indicators", torch.full((n,), 1 / n))

    def update(self, step: Step) -> Update:
        losses = step.losses.detach()
        # In logarithms, so that large losses leave no indicator at 0 / 0.
        logits = torch.log(self.indicators.clamp(min=torch.finfo(self.indicators.dtype).tiny))
        self.indicators = torch.softmax(logits - self.rate * losses, dim=0).to(self.indicators)
        risks = ratio(losses.sum(), losses) * self.indicators
        weights = self._shared_in_groups(risks)
        return Update(total=(weights * step.losses).sum(), shown=weights)

    def _shared_in_groups(self, risks: Tensor) -> Tensor:
        """The mean risk of each task's group [n_tasks]."""
        from sklearn.cluster import KMeans

        values = risks.double().cpu().numpy()[:, None]
        n_groups = min(self.n_groups, len(set(values.ravel().tolist())))
        if n_groups == self.n_tasks:
            return risks
        groups = KMeans(n_groups, n_init=10, random_state=self.seed).fit(values)
        return torch.as_tensor(groups.cluster_centers_[groups.labels_, 0]).to(risks)
