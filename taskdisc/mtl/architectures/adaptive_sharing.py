"""A shared network that grows branches for groups of tasks."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from taskdisc.mtl.architectures.base import (
    MultiTaskNetwork,
    Plan,
    Shown,
    linear_heads,
    stages_of,
)

Group = tuple[int, ...]


class AdaptiveSharing(MultiTaskNetwork):
    """Starts as hard sharing and is split into branches, one stage at a time from the top down.

    Lu et al. 2017. Every `grow_every` epochs the branches above the topmost stage that
    all tasks share are put into groups by the affinity of their tasks; at first every head is
    a branch. Each group gets a copy of the stage. Below, the copies are the branches: see
    `affinity_of` and `best_groups`.

    Every copy is there from the start, one per task and stage, so that checkpoints and optimisers
    keep their shape. A group uses the copy with the number of its first task; one that no task uses
    gets no gradient, and is overwritten when a group takes it.

    Deviations: the network starts at the full width of the backbone, not thinned; where one group
    is best, the stage is tried again after the next epochs; stages that are frozen are not split.

    Args:
        plan: For what it is made.
        grow_every: Epochs between two splits, at least 1.
        branch_cost: What a further branch costs, in units of affinity, at least 0; doubled for
            every convolutional stage, from the one that is split on, that makes the maps smaller.
    """

    routing: Tensor
    n_epochs: Tensor

    def __init__(self, plan: Plan, grow_every: int, branch_cost: float) -> None:
        super().__init__()
        self.grow_every = grow_every
        first = plan.backbone()
        n_stages = len(first.stages)
        copies = [first, *(deepcopy(first) for _ in plan.n_outputs[1:])]
        self.backbones = nn.ModuleList(copies)
        self.heads = linear_heads(first.n_features, plan.n_outputs)
        self.n_frozen = first.n_frozen
        self.costs = [
            branch_cost * 2 ** n_reductions(first.shapes[stage : first.n_convolutional + 1])
            for stage in range(n_stages)
        ]
        self.register_buffer("routing", torch.zeros(n_stages, plan.n_tasks, dtype=torch.long))
        self.register_buffer("n_epochs", torch.zeros((), dtype=torch.long))
        self._read()

    def _read(self) -> None:
        # Kept beside the buffer: reading that in every step would wait for the device.
        self.routes: list[list[int]] = self.routing.tolist()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._read()

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images] * len(self.heads)
        for stages, route in zip(stages_of(self.backbones), self.routes, strict=True):
            # Tasks on one copy are on one copy below it too, so the first of them speaks for all.
            found = {copy: stages[copy](features[route.index(copy)]) for copy in sorted({*route})}
            features = [found[copy] for copy in route]
        return [head(x) for head, x in zip(self.heads, features, strict=True)]

    def after_epoch(self, correct: Tensor) -> bool:
        """Splits a stage where it is time and worth its cost; True where it did."""
        self.n_epochs += 1
        if int(self.n_epochs) % self.grow_every:
            return False
        shared = [
            stage
            for stage, route in enumerate(self.routes)
            if stage >= self.n_frozen and len({*route}) == 1
        ]
        if not shared:
            return False
        stage = shared[-1]
        branches = self.groups(stage + 1)
        groups = best_groups(affinity_of(correct), branches, self.costs[stage])
        if len(groups) == 1:
            return False
        stages = stages_of(self.backbones)[stage]
        for group in groups:
            if group[0]:  # the first group goes on with copy 0, which was everybody's
                stages[group[0]].load_state_dict(stages[0].state_dict())
            self.routing[stage, list(group)] = group[0]
        self._read()
        return True

    def groups(self, stage: int) -> list[Group]:
        """Which tasks share a copy of that stage; behind the last one every task is alone."""
        n_tasks = len(self.heads)
        route = self.routes[stage] if stage < len(self.routes) else list(range(n_tasks))
        return [
            tuple(task for task in range(n_tasks) if route[task] == copy)
            for copy in sorted({*route})
        ]

    def shown(self, names: Sequence[str]) -> list[Shown]:
        lines = self._tree(0, tuple(range(len(self.heads))), names)
        return [Shown("Which tasks share a stage", text="\n".join(lines))]

    def _tree(self, stage: int, above: Group, names: Sequence[str]) -> list[str]:
        """Lines for the stage and those after it, of these tasks."""
        if stage == len(self.routes):
            return []
        lines = []
        for group in self.groups(stage):
            if group[0] in above:
                tasks = ", ".join(names[task] for task in group)
                lines.append(f"{'  ' * stage}stage {stage + 1}: {tasks}")
                lines += self._tree(stage + 1, group, names)
        return lines


def n_reductions(shapes: Sequence[tuple[int, ...]]) -> int:
    """In how many steps of a row of shapes the maps get smaller; a vector is a map of one pixel."""
    sizes = [max(shape[1:], default=1) for shape in shapes]
    return sum(after < before for before, after in pairwise(sizes))


def affinity_of(correct: Tensor) -> Tensor:
    """How probably two tasks are both easy or both hard on an image, [n_tasks, n_tasks].

    Lu et al. 2017: an image is easy for a task where its error is below the task's mean. The mean
    is over images with labels of both tasks; 0.5, which is chance, where there are none.

    Args:
        correct: As `MultiTaskNetwork.after_epoch` hears it, [n_tasks, n]; the negative loss stands
            for the paper's margin.
    """
    correct = correct.detach().double().cpu()
    known = (~correct.isnan()).double()
    easy = (correct >= correct.nanmean(1, keepdim=True)).double()
    hard = known - easy
    n_both = known @ known.T
    agreed = easy @ easy.T + hard @ hard.T
    affinity = torch.where(n_both > 0, agreed / n_both.clamp(min=1), 0.5)
    return affinity.fill_diagonal_(1.0)


def best_groups(affinity: Tensor, branches: Sequence[Group], cost: float) -> list[Group]:
    """The grouping of branches that costs least, each group as its tasks in order.

    After Lu et al. 2017: for every number of groups d spectral clustering of the affinities between
    branches gives a grouping, which costs (d − 1) · cost plus its separation: the mean over groups
    of 1 − mean_k min_l B(k, l), k and l among the group's branches. The affinity B of two branches
    is the mean over tasks of one of the smallest affinity with a task of the other, both ways.

    Args:
        affinity: Of tasks, [n_tasks, n_tasks], in [0, 1].
        branches: The tasks of each branch.
        cost: Of a further group.
    """
    between = torch.stack(
        [torch.stack([_one_way(affinity, k, m) for m in branches]) for k in branches]
    )
    between = (between + between.T) / 2
    best: list[list[int]] = []
    least = float("inf")
    for n_groups in range(1, len(branches) + 1):
        places = _clusters(between, n_groups)
        apart = [1 - between[p][:, p].min(1).values.mean() for p in places]
        total = (len(places) - 1) * cost + float(torch.stack(apart).mean())
        if total < least - 1e-9:  # a tie goes to fewer groups
            best, least = places, total
    return sorted(tuple(sorted(task for k in places for task in branches[k])) for places in best)


def _one_way(affinity: Tensor, tasks: Group, others: Group) -> Tensor:
    return affinity[list(tasks)][:, list(others)].min(1).values.mean()


def _clusters(affinity: Tensor, n_groups: int) -> list[list[int]]:
    """Places of the branches of each group."""
    n = len(affinity)
    if n_groups in (1, n):
        labels = list(range(n)) if n_groups == n else [0] * n
    else:
        from sklearn.cluster import SpectralClustering

        # Pivoted QR takes labels from eigenvectors without drawing; the seed is of the solver's
        # start. Affinities of exactly 0 would cut the graph, which the solver warns of.
        rule = SpectralClustering(
            n_groups, affinity="precomputed", assign_labels="cluster_qr", random_state=0
        )
        labels = rule.fit_predict(affinity.clamp(min=1e-6).numpy()).tolist()
    return [[k for k in range(n) if labels[k] == label] for label in sorted({*labels})]
