"""What all architectures have in common, known answers of each, and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from taskdisc.errors import SettingError
from taskdisc.mtl.architectures import ARCHITECTURES, make_network
from taskdisc.mtl.architectures.adaptive_sharing import (
    AdaptiveSharing,
    affinity_of,
    best_groups,
    n_reductions,
)
from taskdisc.mtl.architectures.base import MultiTaskNetwork, reach, windows
from taskdisc.mtl.architectures.deep_relationship import RIDGE, DeepRelationship
from taskdisc.mtl.architectures.label_reuse import LabelReuse
from taskdisc.mtl.backbones import BACKBONES, make_backbone
from taskdisc.mtl.backbones.base import Backbone

NAMES = list(ARCHITECTURES)
each_architecture = pytest.mark.parametrize("name", NAMES)

TASKS = list("abcdefgh")
SHAPE = (1, 16, 16)
IMAGES = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
SMALL: dict[str, dict[str, Any]] = {"convnet": {"width": 4}, "resnet": {"depth": 8, "width": 4}}
NO_NEWS = torch.full((1, 1), torch.nan)

Make = Callable[[], Backbone]


def whole() -> Backbone:
    """A backbone of a single stage, like a pretrained network whose outputs are the features."""
    stage = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    return Backbone([stage], SHAPE, 1)


def lenet() -> Backbone:
    return make_backbone("lenet", SHAPE)


def frozen() -> Backbone:
    """All but the last stage as they are, as with a pretrained network."""
    backbone = make_backbone("convnet", SHAPE, width=4)
    backbone.freeze(3)
    return backbone


BACKBONE: dict[str, Make] = {
    **{n: lambda n=n: make_backbone(n, SHAPE, **SMALL.get(n, {})) for n in BACKBONES},
    "whole": whole,
    "frozen": frozen,
}
each_backbone = pytest.mark.parametrize("backbone", list(BACKBONE))


def outputs_of(network: MultiTaskNetwork) -> list[Tensor]:
    network.eval()
    with torch.no_grad():
        return network(IMAGES)


def shared(network: MultiTaskNetwork, tasks: list[int]) -> set[str]:
    """Names of the parameters that exactly these tasks reach."""
    return {name for name, found in reach(network, IMAGES).items() if found == tasks}


@each_architecture
def test_a_row_is_complete(name: str) -> None:
    row = ARCHITECTURES[name]
    assert row.summary and row.summary[-1] != "."
    assert row.paper is None or row.paper.url.startswith("https://")
    for setting in row.settings.values():
        assert setting.keeps(setting.default, 3)


def test_reading_the_table_imports_no_torch() -> None:
    code = "import taskdisc.mtl.architectures, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@each_backbone
@each_architecture
def test_outputs_fit_and_train(name: str, backbone: str) -> None:
    network = make_network(name, BACKBONE[backbone], [3, 1, 2])
    outputs = network.train()(IMAGES)
    assert [tuple(output.shape) for output in outputs] == [(4, 3), (4, 1), (4, 2)]
    assert len(network.heads) == 3
    loss = torch.stack([output.square().mean() for output in outputs]).sum()
    penalty = network.penalty()
    (loss if penalty is None else loss + penalty).backward()
    for parameter, found in reach(network, IMAGES).items():
        gradient = network.get_parameter(parameter).grad
        assert (gradient is not None) == bool(found), parameter
        assert gradient is None or gradient.isfinite().all(), parameter


@each_architecture
def test_frozen_stages_stay_as_they_are(name: str) -> None:
    network = make_network(name, frozen, [2, 2])
    frozen_names = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert frozen_names and all("stages" in n for n in frozen_names)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.train()(IMAGES)
    for key, value in network.state_dict().items():
        if "running" in key and "stages" in key:
            assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("n_tasks", [1, 2, 5])
@each_architecture
def test_any_number_of_tasks(name: str, n_tasks: int) -> None:
    if n_tasks < ARCHITECTURES[name].least_tasks:
        with pytest.raises(SettingError, match="n_tasks"):
            make_network(name, lenet, [2] * n_tasks)
        return
    network = make_network(name, lenet, [2] * n_tasks)
    assert [tuple(output.shape) for output in network(IMAGES)] == [(4, 2)] * n_tasks
    assert isinstance(network.after_epoch(torch.randn(n_tasks, 6)), bool)
    for shown in network.shown(TASKS):
        assert shown.title and (shown.text or len(shown.matrix) == n_tasks)


@each_architecture
def test_weights_follow_from_the_seed(name: str) -> None:
    torch.manual_seed(5)
    one = make_network(name, lenet, [2, 3], seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert_close(drawn, torch.rand(1))  # the caller's generator is where it was
    other = make_network(name, lenet, [2, 3], seed=1)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    third = make_network(name, lenet, [2, 3], seed=2)
    assert not torch.equal(outputs_of(one)[0], outputs_of(third)[0])


# Losses of pairs of tasks that go together, from a fixed draw.
PAIRS = torch.randn(2, 400, generator=torch.Generator().manual_seed(1)).repeat_interleave(2, 0)

# So that networks that learn something at the end of an epoch have done so.
EAGER: dict[str, dict[str, Any]] = {"adaptive-sharing": {"grow_every": 1}}


@each_backbone
@each_architecture
def test_a_saved_state_restores_the_network(name: str, backbone: str) -> None:
    settings = EAGER.get(name, {})
    network = make_network(name, BACKBONE[backbone], [2, 2, 2, 2], seed=1, **settings).train()
    for _ in range(2):
        network(IMAGES)  # moves batch statistics
        network.after_epoch(PAIRS)
    other = make_network(name, BACKBONE[backbone], [2, 2, 2, 2], seed=2, **settings)
    other.load_state_dict(network.state_dict())
    for output, restored in zip(outputs_of(network), outputs_of(other), strict=True):
        assert torch.equal(output, restored)
    assert network.shown(TASKS) == other.shown(TASKS)
    penalty, restored_penalty = network.penalty(), other.penalty()
    assert (penalty is None) == (restored_penalty is None)
    if penalty is not None and restored_penalty is not None:
        assert torch.equal(penalty, restored_penalty)
    assert network.after_epoch(PAIRS) == other.after_epoch(PAIRS)
    assert network.shown(TASKS) == other.shown(TASKS)


@each_architecture
def test_mixed_precision(name: str) -> None:
    network = make_network(name, BACKBONE["convnet"], [2, 2])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(IMAGES)
        penalty = network.penalty()
    assert all(output.isfinite().all() for output in outputs)
    assert penalty is None or penalty.dtype == torch.float32


# What is shared.


def test_independent_networks_share_nothing() -> None:
    network = make_network("independent", lenet, [2, 3])
    assert shared(network, [0, 1]) == set()


def test_hard_sharing_shares_the_backbone() -> None:
    network = make_network("hard-sharing", lenet, [2, 3])
    assert shared(network, [0, 1]) == {
        n for n, _ in network.named_parameters() if n.startswith("shared")
    }
    assert shared(network, [1]) == {"heads.1.weight", "heads.1.bias"}


def test_reuse_shares_what_its_settings_say() -> None:
    def made(**settings: Any) -> MultiTaskNetwork:
        return make_network("label-reuse", lenet, [2, 3], giver=1, **settings)

    def starting(*starts: str) -> set[str]:
        return {n for n, _ in made().named_parameters() if n.startswith(starts)}

    apart = made(convolutions="independent", detach=True)
    assert shared(apart, [0, 1]) == set()
    assert shared(made(detach=True), [0, 1]) == starting("convolutions")
    assert shared(made(), [0, 1]) == starting("convolutions", "tops.1", "heads.1")
    assert shared(made(), [0]) == starting("tops.0", "heads.0")


def test_gates_experts_and_attentions_share_what_is_not_a_task_s_own() -> None:
    mmoe = make_network("mmoe", lenet, [2, 3])
    assert all("experts" in name for name in shared(mmoe, [0, 1]))
    assert any("gates.1" in name for name in shared(mmoe, [1]))
    cgc = make_network("cgc", lenet, [2, 3])
    assert {n.split(".stages")[0] for n in shared(cgc, [0, 1])} == {"level.experts.2"}
    mtan = make_network("mtan", lenet, [2, 3])
    assert {n.split(".")[0] for n in shared(mtan, [0, 1]) if "carry" not in n} == {"backbone"}
    assert any("masks.1" in name for name in shared(mtan, [1]))


# Known answers.


def test_reach_leaves_the_network_as_it_was() -> None:
    network = make_network("hard-sharing", BACKBONE["convnet"], [2, 2]).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    reach(network, IMAGES)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_parts_of_a_backbone_make_the_whole() -> None:
    backbone = frozen().eval()
    lower, upper = backbone.part(0, 2), backbone.part(2)
    assert_close(upper(lower(IMAGES)), backbone(IMAGES))
    assert (lower.n_convolutional, upper.n_convolutional) == (2, 1)
    assert (lower.n_frozen, upper.n_frozen) == (2, 1)
    assert upper.shapes == backbone.shapes[2:]
    nothing = backbone.part(4)
    assert nothing.n_features == backbone.n_features and len(nothing.stages) == 0


@pytest.mark.parametrize(("before", "after"), [(32, 14), (14, 5), (16, 16), (7, 1), (5, 4)])
def test_pooling_meets_the_shape(before: int, after: int) -> None:
    pooled = nn.MaxPool2d(*windows((3, before, before), (3, after, after)))
    assert pooled(torch.zeros(1, 3, before, before)).shape[2:] == (after, after)


def test_cross_stitch_with_all_weight_on_itself_is_independent() -> None:
    stitched = make_network("cross-stitch", lenet, [2, 3, 1], seed=3, self_weight=1)
    independent = make_network("independent", lenet, [2, 3, 1], seed=3)
    for output, expected in zip(outputs_of(stitched), outputs_of(independent), strict=True):
        assert_close(output, expected)


def test_cross_stitch_mixes_as_its_units_say() -> None:
    network = make_network("cross-stitch", whole, [2, 3, 1], self_weight=0.6)
    independent = make_network("independent", whole, [2, 3, 1])
    features = torch.stack([backbone(IMAGES) for backbone in independent.backbones])
    unit = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
    (shown,) = network.shown(TASKS)
    assert_close(torch.tensor(shown.matrix), unit)
    unit = torch.tensor([[0.6, 0.3, 0.1], [0.0, 1.0, 0.2], [-0.2, 0.2, 0.6]])
    with torch.no_grad():
        network.units[0].copy_(unit)
    mixed = torch.tensordot(unit, features, 1)
    for output, head, x in zip(outputs_of(network), independent.heads, mixed, strict=True):
        assert_close(output, head(x))


def label_of(network: LabelReuse, giver: int) -> Tensor:
    given = outputs_of(network)[giver]
    return given.softmax(1) if given.shape[1] > 1 else given.sigmoid()


@pytest.mark.parametrize("convolutions", ["shared", "independent"])
@pytest.mark.parametrize("giver", [0, 1])
@torch.no_grad()
def test_label_reuse_is_concatenation(giver: int, convolutions: str) -> None:
    network = make_network("label-reuse", lenet, [3, 1], giver=giver, convolutions=convolutions)
    assert isinstance(network, LabelReuse)
    receiver = 1 - giver
    label = label_of(network, giver)
    bottoms = list(network.convolutions)
    maps = bottoms[receiver % len(bottoms)](IMAGES)
    first, *rest = network.tops[receiver].stages
    explicit = nn.Linear(first.linear.in_features + label.shape[1], first.linear.out_features)
    explicit.weight.copy_(torch.cat([first.linear.weight, first.more.weight], 1))
    explicit.bias.copy_(first.linear.bias)
    x = torch.relu(explicit(torch.cat([maps.flatten(1), label], 1)))
    for stage in rest:
        x = stage(x)
    assert_close(outputs_of(network)[receiver], network.heads[receiver](x))


@torch.no_grad()
def test_label_reuse_widens_heads_where_nothing_is_fully_connected() -> None:
    network = make_network("label-reuse", whole, [3, 2])
    assert isinstance(network, LabelReuse)
    features = network.convolutions[0](IMAGES)
    head = network.heads[1]
    assert head.in_features == features.shape[1] + 3
    expected = head(torch.cat([features, label_of(network, 0)], 1))
    assert_close(outputs_of(network)[1], expected)


def test_a_detached_giver_is_not_trained_by_others() -> None:
    for detach in (False, True):
        network = make_network("label-reuse", lenet, [3, 2], detach=detach)
        network(IMAGES)[1].sum().backward()
        assert (network.heads[0].weight.grad is None) == detach


def test_masks_of_an_attention_lie_between_0_and_1() -> None:
    network = make_network("mtan", BACKBONE["convnet"], [2, 2]).eval()
    shared_features = network.backbone.stages[0](IMAGES)
    masked = network.attentions[0](shared_features, [])
    assert len(masked) == 2 and not torch.equal(masked[0], masked[1])
    for x in masked:
        assert ((x >= 0) & (x <= shared_features)).all()  # what a ReLU and pooling gave is no less
    # Open masks leave the shared network.
    for attention in network.attentions:
        for mask in attention.masks:
            nn.init.zeros_(mask[-2].weight)
            nn.init.constant_(mask[-2].bias, 100.0)
    features = network.backbone(IMAGES)
    for output, head in zip(outputs_of(network), network.heads, strict=True):
        assert_close(output, head(features))


def test_a_single_expert_is_hard_sharing() -> None:
    expert = make_network("mmoe", lenet, [2, 3], seed=3, n_experts=1)
    hard = make_network("hard-sharing", lenet, [2, 3], seed=3)
    expert.heads.load_state_dict(hard.heads.state_dict())  # drawn after gates there
    for output, expected in zip(outputs_of(expert), outputs_of(hard), strict=True):
        assert_close(output, expected)


def test_equal_gates_give_the_mean_of_experts() -> None:
    network = make_network("mmoe", lenet, [2, 3], n_experts=3)
    for gate in network.level.gates:
        nn.init.zeros_(gate.scores[-1].weight)
        nn.init.zeros_(gate.scores[-1].bias)
    mean = torch.stack([expert(IMAGES) for expert in network.level.experts]).mean(0)
    for output, head in zip(outputs_of(network), network.heads, strict=True):
        assert_close(output, head(mean))


def test_gates_see_a_task_s_own_experts_and_the_shared_ones() -> None:
    network = make_network("cgc", lenet, [2, 3], n_own=2, n_shared=1)
    assert network.level.owners == [0, 0, 1, 1, 2]
    assert network.level.seen == [[0, 1, 4], [2, 3, 4]]
    layered = make_network("ple", lenet, [2, 3], n_own=2, n_shared=1)
    assert [len(level.seen) for level in layered.levels] == [3, 3, 3, 2]
    assert layered.levels[0].seen[2] == [0, 1, 2, 3, 4]


def test_layered_extraction_of_one_stage_is_a_single_level() -> None:
    one = make_network("cgc", whole, [2, 3], seed=4, n_own=2, n_shared=2)
    layered = make_network("ple", whole, [2, 3], seed=4, n_own=2, n_shared=2)
    for output, expected in zip(outputs_of(layered), outputs_of(one), strict=True):
        assert_close(output, expected)


# The deep relationship network.


def related(n_outputs: list[int], backbone: Make = lenet) -> DeepRelationship:
    network = make_network("deep-relationship", backbone, n_outputs, strength=0.5)
    assert isinstance(network, DeepRelationship)
    return network


def penalty_of(network: MultiTaskNetwork) -> float:
    penalty = network.penalty()
    assert penalty is not None
    return float(penalty.detach())


def test_the_prior_starts_as_the_squared_norm() -> None:
    network = related([2, 3])
    weights = [p for top in network.tops for p in top.parameters() if p.dim() == 2]
    assert len(weights) == 4
    norm = sum(float(weight.detach().square().sum()) for weight in weights)
    assert penalty_of(network) == pytest.approx(0.5 * norm)


def test_the_prior_is_on_heads_where_they_are_alike() -> None:
    assert list(related([2, 3]).layers()) == ["fully connected layer 0", "fully connected layer 1"]
    assert list(related([2, 2]).layers())[-1] == "heads"
    assert list(related([2, 2], whole).layers()) == ["heads"]
    bare = related([2, 3], whole)
    assert bare.penalty() is None and bare.shown(TASKS) == [] and not bare.after_epoch(NO_NEWS)


def test_frozen_layers_are_not_under_the_prior() -> None:
    def fixed() -> Backbone:
        backbone = lenet()
        backbone.freeze(4)
        return backbone

    assert list(related([2, 2], fixed).layers()) == ["heads"]


PLANTED = torch.tensor([[1.0, 0.8, -0.5], [0.8, 1.0, -0.2], [-0.5, -0.2, 1.0]])


def planted_network() -> DeepRelationship:
    network = related([2, 3, 1])
    mix = torch.linalg.cholesky(PLANTED)
    generator = torch.Generator().manual_seed(0)
    tops = [[p for p in top.parameters() if p.dim() == 2] for top in network.tops]
    with torch.no_grad():
        for weights in zip(*tops, strict=True):
            drawn = torch.randn(3, *weights[0].shape, generator=generator)
            for weight, row in zip(weights, mix, strict=True):
                weight.copy_(0.1 * torch.tensordot(row, drawn, 1))
    return network


def test_the_covariance_finds_a_planted_relationship() -> None:
    network = planted_network()
    assert not network.after_epoch(NO_NEWS)
    for shown in network.shown(TASKS):
        found = torch.tensor(shown.matrix)
        assert_close(found.trace(), torch.tensor(3.0))
        assert_close(found, found.T)
        assert_close(found, PLANTED, atol=0.08, rtol=0)


def test_the_penalty_is_the_trace_form() -> None:
    network = planted_network()
    network.after_epoch(NO_NEWS)
    expected = 0.0
    for weights in network.layers().values():
        w = weights.detach().double()
        raw = w @ w.T / w.shape[1]
        raw += RIDGE * raw.trace() / 3 * torch.eye(3)
        covariance = raw * 3 / raw.trace()
        expected += 0.5 * float(torch.trace(w.T @ torch.linalg.solve(covariance, w)))
    assert penalty_of(network) == pytest.approx(expected, rel=1e-4)


def test_the_penalty_pulls_related_tasks_together() -> None:
    network = related([2, 2], whole)
    network.covariances.copy_(torch.tensor([[[1.0, 0.9], [0.9, 1.0]]]))
    weights = [head.weight for head in network.heads]
    with torch.no_grad():
        weights[0].fill_(1.0)
        weights[1].fill_(1.0)
        alike = penalty_of(network)
        weights[1].fill_(-1.0)
        assert penalty_of(network) == pytest.approx(19 * alike)  # 1 / (1 − .9) against 1 / (1 + .9)


# Adaptive sharing.


def growing(n_tasks: int, backbone: Make = lenet, **settings: Any) -> AdaptiveSharing:
    settings = {"grow_every": 1, "branch_cost": 0.05, **settings}
    network = make_network("adaptive-sharing", backbone, [2] * n_tasks, **settings)
    assert isinstance(network, AdaptiveSharing)
    return network


def test_affinity_counts_images_on_which_tasks_agree() -> None:
    nan = torch.nan
    correct = torch.tensor(
        [[-9.0, -9, -1, -1], [-5, -5, -2, -2], [-1, -2, -1, -2], [-1, -3, nan, nan], [nan] * 4]
    )
    expected = torch.tensor(
        [
            [1, 1, 0.5, 0.5, 0.5],
            [1, 1, 0.5, 0.5, 0.5],
            [0.5, 0.5, 1, 1, 0.5],
            [0.5, 0.5, 1, 1, 0.5],
            [0.5, 0.5, 0.5, 0.5, 1],
        ]
    )
    assert_close(affinity_of(correct), expected.double())


def blocks(sizes: list[int], within: float, across: float) -> Tensor:
    label = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    affinity = torch.where(label[:, None] == label, within, across).double()
    return affinity.fill_diagonal_(1.0)


ALONE = [(task,) for task in range(6)]


@pytest.mark.parametrize(
    ("sizes", "across", "cost", "expected"),
    [
        ([3, 3], 0.5, 0.05, [(0, 1, 2), (3, 4, 5)]),
        ([3, 3], 0.5, 0.5, [(0, 1, 2, 3, 4, 5)]),  # 1 − .5 is not worth another .5
        ([3, 3], 0.0, 0.05, [(0, 1, 2), (3, 4, 5)]),
        ([2, 2, 2], 0.5, 0.05, [(0, 1), (2, 3), (4, 5)]),
        ([6], 0.5, 0.05, [(0, 1, 2, 3, 4, 5)]),
        ([1] * 6, 0.5, 0.05, ALONE),
        ([1] * 6, 0.5, 0.6, [(0, 1, 2, 3, 4, 5)]),
        ([3, 3], 0.5, 0.0, ALONE),
    ],
)
def test_groups_trade_branches_for_separation(
    sizes: list[int], across: float, cost: float, expected: list[tuple[int, ...]]
) -> None:
    assert best_groups(blocks(sizes, 0.95, across), ALONE, cost) == expected


def test_a_tie_goes_to_fewer_groups() -> None:
    assert best_groups(blocks([6], 1.0, 1.0), ALONE, 0.0) == [(0, 1, 2, 3, 4, 5)]


def test_branches_are_grouped_by_their_tasks() -> None:
    branches = [(0, 3), (1,), (2, 4, 5)]
    affinity = torch.full((6, 6), 0.5, dtype=torch.float64)
    affinity[[0, 3, 1]] = torch.tensor([0.9, 0.9, 0.5, 0.9, 0.5, 0.5]).double()
    affinity[[2, 4, 5]] = torch.tensor([0.5, 0.5, 0.9, 0.5, 0.9, 0.9]).double()
    affinity.fill_diagonal_(1.0)
    assert best_groups(affinity, branches, 0.05) == [(0, 1, 3), (2, 4, 5)]


def test_maps_that_get_smaller_are_counted() -> None:
    assert n_reductions([(1, 32, 32), (6, 14, 14), (16, 5, 5)]) == 2
    assert n_reductions([(16, 8, 8), (16, 8, 8), (64,)]) == 1
    assert n_reductions([(64,)]) == 0
    assert growing(2, branch_cost=0.1).costs == pytest.approx([0.4, 0.2, 0.1, 0.1])


def test_planted_groups_split_from_the_top_down() -> None:
    network = growing(4).train()
    for stage in (3, 2, 1, 0):
        with torch.no_grad():  # as if trained: copies that wait are no longer like the one in use
            for parameter in network.backbones[0].parameters():
                parameter *= 1.1
        before = outputs_of(network)
        assert shared(network, [0, 1, 2, 3])
        assert network.after_epoch(PAIRS)
        assert network.groups(stage) == [(0, 1), (2, 3)]
        for output, expected in zip(outputs_of(network), before, strict=True):
            assert torch.equal(output, expected)
        on_stage = f"stages.{stage}."
        assert all(
            on_stage in name for name in shared(network, [2, 3]) if "backbones.2" not in name
        )
    assert shared(network, [0, 1, 2, 3]) == set()
    assert not network.after_epoch(PAIRS)


def test_a_split_stage_is_trained_apart_from_its_parent() -> None:
    network = growing(4, BACKBONE["convnet"]).train()
    network(IMAGES)
    network.after_epoch(PAIRS)
    copies = [network.backbones[copy].stages[3][1].weight for copy in (0, 2)]
    assert torch.equal(*copies) and copies[0].data_ptr() != copies[1].data_ptr()
    network(IMAGES)[0].sum().backward()
    assert copies[0].grad is not None and copies[1].grad is None


def test_groups_below_hold_whole_groups_above() -> None:
    generator = torch.Generator().manual_seed(3)
    network = growing(6, branch_cost=0.02)
    for _ in range(6):
        network.after_epoch(torch.randn(6, 30, generator=generator))
    for stage in range(4):
        for group in network.groups(stage + 1):
            assert any(set(group) <= set(below) for below in network.groups(stage))


def test_growing_waits_for_its_epochs() -> None:
    network = growing(4, grow_every=3)
    assert [network.after_epoch(PAIRS) for _ in range(6)] == [False, False, True] * 2


def test_tasks_that_agree_stay_together() -> None:
    network = growing(3)
    agreeing = PAIRS[:1].repeat(3, 1)
    assert not any(network.after_epoch(agreeing) for _ in range(3))
    assert shared(network, [0, 1, 2])


def test_stages_that_are_frozen_are_not_split() -> None:
    network = growing(4, frozen)
    assert [network.after_epoch(PAIRS) for _ in range(3)] == [True, False, False]


def test_the_tree_is_told() -> None:
    network = growing(4)
    network.after_epoch(PAIRS)
    network.after_epoch(PAIRS)
    (shown,) = network.shown(TASKS)
    assert shown.text.splitlines() == [
        "stage 1: a, b, c, d",
        "  stage 2: a, b, c, d",
        "    stage 3: a, b",
        "      stage 4: a, b",
        "    stage 3: c, d",
        "      stage 4: c, d",
    ]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("hard-sharin", {}, "did you mean 'hard-sharing'"),
    ("hard-sharing", {"strength": 1}, "`strength` is not a setting of architecture"),
    ("label-reuse", {"giver": 2}, "`giver` .* number of a task, from 0 to 1, got 2"),
    ("label-reuse", {"giver": -1}, "`giver`"),
    ("label-reuse", {"giver": True}, "`giver`"),
    ("label-reuse", {"convolutions": "own"}, "one of shared, independent, got 'own'"),
    ("label-reuse", {"detach": 1}, "true or false"),
    ("cross-stitch", {"self_weight": 1.5}, "`self_weight`"),
    ("mmoe", {"n_experts": 0}, "`n_experts`"),
    ("cgc", {"n_own": 0}, "`n_own`"),
    ("ple", {"n_shared": 0}, "`n_shared`"),
    ("deep-relationship", {"strength": -1}, "`strength`"),
    ("adaptive-sharing", {"grow_every": 0}, "`grow_every`"),
    ("adaptive-sharing", {"branch_cost": -0.1}, "`branch_cost`"),
]


@pytest.mark.parametrize(("name", "settings", "sentence"), BAD)
def test_bad_settings_are_refused(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        make_network(name, lenet, [2, 2], **settings)


def test_reuse_needs_a_layer_to_widen() -> None:
    def odd() -> Backbone:
        last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return Backbone([nn.Conv2d(1, 4, 3), last], SHAPE, 1)

    with pytest.raises(SettingError, match="first fully connected stage"):
        make_network("label-reuse", odd, [2, 2])


def test_hard_sharing_of_convolutions_alone() -> None:
    network = make_network("hard-sharing", lenet, [2, 1, 3], fully_connected="own")
    found = reach(network, IMAGES)
    assert {name for name in found if len(found[name]) == 3} == shared(network, [0, 1, 2])
    assert all(name.startswith("shared.") for name in shared(network, [0, 1, 2]))
    # two layers of weights and biases, and the head
    assert [len(shared(network, [task])) for task in range(3)] == [6, 6, 6]
    plain, bare = (
        make_network("hard-sharing", BACKBONE["resnet"], [2, 1], fully_connected=how)
        for how in ("shared", "own")
    )
    assert_close(outputs_of(plain), outputs_of(bare))
