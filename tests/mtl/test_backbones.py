"""Backbones: what they compute, which stages are trained, where weights come from."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision import models

from taskdisc.errors import SettingError
from taskdisc.mtl.architectures import make_network
from taskdisc.mtl.backbones import BACKBONES, make_backbone
from taskdisc.mtl.backbones.base import Backbone, frozen_features
from taskdisc.mtl.backbones.make import checked
from taskdisc.taskness.lenet import LeNet

SMALL = (3, 32, 32)
RESNET = "torchvision:resnet18"
SHUFFLENET = "torchvision:shufflenet_v2_x0_5"
IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


# As torchvision makes it for its published weights, without the side outputs of training.
OPTIONS = {"googlenet": {"transform_input": True, "init_weights": False, "aux_logits": False}}


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def made(name: str, shape: tuple[int, ...] = SMALL, **settings: Any) -> Backbone:
    torch.manual_seed(0)
    return make_backbone(name, shape, **settings)


def moved(network: nn.Module) -> nn.Module:
    """With batch statistics away from their initial values, so that losing them shows."""
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.5, -0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.1, 0.5)
    return network


def saved(network: nn.Module, path: Path) -> str:
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.fixture
def own(tmp_path: Path) -> str:
    """Weights of a convnet."""
    return saved(moved(made("convnet", width=4)), tmp_path / "own.pth")


@pytest.mark.parametrize("name", BACKBONES)
def test_a_row_is_complete(name: str) -> None:
    row = BACKBONES[name]
    assert row.summary and row.summary[-1] != "."
    assert row.paper is None or row.paper.url.startswith("https://")
    assert checked(name, {}) is row


def test_checking_imports_no_torch() -> None:
    code = (
        "from taskdisc.mtl.backbones.make import checked; import sys;"
        "checked('torchvision:vgg16', {'mode': 'fixed', 'weights': 'download'});"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16), (3, 64, 48), (3, 17, 23)])
@pytest.mark.parametrize("name", BACKBONES)
def test_shapes_are_those_of_the_stages(name: str, shape: tuple[int, ...]) -> None:
    backbone = made(name, shape)
    x = images(2, *shape)
    assert backbone.shapes[0] == shape
    for stage, expected in zip(backbone.stages, backbone.shapes[1:], strict=True):
        x = stage(x)
        assert x.shape[1:] == expected
    assert x.shape == (2, backbone.n_features)


@pytest.mark.parametrize("name", BACKBONES)
def test_images_of_the_least_side_are_taken(name: str) -> None:
    side = BACKBONES[name].least_side
    assert made(name, (3, side, side))(images(2, 3, side, side)).isfinite().all()


def test_lenet_is_that_of_the_search() -> None:
    reference, backbone = LeNet(), made("lenet")
    layers = [reference.conv1, reference.conv2, reference.fc1, reference.fc2]
    values = [value for layer in layers for value in layer.state_dict().values()]
    backbone.load_state_dict(dict(zip(backbone.state_dict(), values, strict=True)))
    x = images(5, *SMALL)
    assert_close(reference.fc3(backbone(x)), reference(x))
    assert backbone.n_convolutional == 2


# He et al. 2016, table 6, in millions, with a last layer for ten classes.
@pytest.mark.parametrize(
    ("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")]
)
def test_resnet_has_the_papers_number_of_parameters(depth: int, millions: str) -> None:
    backbone = made("resnet", depth=depth)
    n = sum(p.numel() for p in backbone.parameters()) + 10 * backbone.n_features + 10
    assert f"{n / 1e6:.{len(millions) - 2}f}" == millions
    layers = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert len(layers) + 1 == depth


@pytest.mark.parametrize(
    ("model", "n_stages", "n_convolutional"),
    [
        ("resnet18", 6, 5),
        ("mobilenet_v3_small", 2, 1),
        # Has a flatten of its own, before which another one would break it.
        ("convnext_tiny", 2, 1),
        # Its children miss a mean over the image.
        ("shufflenet_v2_x0_5", 1, 0),
        # It moves colours before its first child.
        ("googlenet", 1, 0),
        ("squeezenet1_0", 1, 1),
    ],
)
def test_stages_are_the_classifier(model: str, n_stages: int, n_convolutional: int) -> None:
    backbone = made(f"torchvision:{model}", (3, 64, 64)).eval()
    torch.manual_seed(0)
    reference = models.get_model(model, weights=None, **OPTIONS.get(model, {})).eval()
    assert (len(backbone.stages), backbone.n_convolutional) == (n_stages, n_convolutional)
    assert backbone.shapes[0] == (3, 64, 64) and backbone.n_features == 1000
    assert all(list(stage.parameters()) for stage in backbone.stages)
    x = images(2, 3, 64, 64)
    assert_close(backbone(x), reference(x), rtol=0, atol=0)
    assert backbone.train()(x).shape == (2, 1000)


@pytest.mark.parametrize(
    ("model", "head", "n_convolutional"),
    [
        ("resnet18", "fc", 5),
        ("mobilenet_v3_small", "classifier.3", 1),
        ("densenet121", "classifier", 1),
    ],
)
def test_penultimate_features_are_what_the_last_layer_takes(
    model: str, head: str, n_convolutional: int
) -> None:
    backbone = made(f"torchvision:{model}", (3, 64, 64), features="penultimate").eval()
    torch.manual_seed(0)
    reference = models.get_model(model, weights=None).eval()
    x = images(2, 3, 64, 64)
    assert_close(reference.get_submodule(head)(backbone(x)), reference(x))
    assert backbone.n_convolutional == n_convolutional


def test_images_are_resized_to_the_side() -> None:
    x = images(2, 3, 16, 20)
    backbone = made(RESNET, (3, 16, 20), side=48).eval()
    larger = F.interpolate(x, (48, 48), mode="bilinear", antialias=True, align_corners=False)
    assert_close(backbone(x), made(RESNET, (3, 48, 48)).eval()(larger))
    assert backbone.shapes[0] == (3, 16, 20)


def changed_by_a_step(backbone: Backbone) -> set[str]:
    """Names of the parameters and batch statistics that a step of training changes."""
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = backbone.train()(images(8, *backbone.shapes[0]))
    (features * images(*features.shape)).sum().backward()
    torch.optim.SGD(backbone.parameters(), lr=0.1).step()
    return {name for name, value in backbone.state_dict().items() if (value != before[name]).any()}


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({"mode": "whole"}, "01234"),
        ({"mode": "last"}, "34"),
        ({"mode": "last", "n_last": 3}, "1234"),
        ({"mode": "last", "n_last": 4}, "01234"),
        ({"mode": "fixed"}, "4"),
    ],
)
def test_a_step_changes_what_the_mode_trains(
    own: str, settings: dict[str, Any], trained: str
) -> None:
    backbone = made("convnet", width=4, weights=own, hidden=8, **settings)
    expected = {name for name in backbone.state_dict() if name.split(".")[1] in trained}
    assert changed_by_a_step(backbone) == expected
    given = {p for p in backbone.parameters() if p.requires_grad}
    assert given == {p for n, p in backbone.named_parameters() if n in expected}
    frozen = backbone.stages[: backbone.n_frozen]
    assert not any(module.training for stage in frozen for module in stage.modules())


def test_scratch_trains_all() -> None:
    backbone = made("convnet", width=4)
    assert backbone.n_frozen == 0 and changed_by_a_step(backbone) == set(backbone.state_dict())


def test_a_fixed_backbone_has_nothing_to_train(own: str) -> None:
    backbone = made("convnet", width=4, weights=own, mode="fixed")
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("name", [*BACKBONES, SHUFFLENET])
def test_own_weights_come_back(name: str, hidden: int, tmp_path: Path) -> None:
    backbone = made(name, hidden=hidden)
    weights = saved(moved(backbone), tmp_path / "weights.pth")
    torch.manual_seed(1)
    again = make_backbone(name, SMALL, mode="whole", weights=weights, hidden=hidden)
    x = images(2, *SMALL)
    assert_close(again.eval()(x), backbone.eval()(x), rtol=0, atol=0)
    assert again.normalisation is None


def test_a_hidden_layer_is_drawn_where_the_weights_have_none(own: str) -> None:
    plain = made("convnet", width=4, mode="fixed", weights=own).eval()
    backbone = made("convnet", width=4, mode="fixed", weights=own, hidden=8).eval()
    x = images(2, *SMALL)
    assert_close(backbone(x), backbone.stages[-1](plain(x)))
    assert backbone.shapes[-2:] == [(16,), (8,)] and (backbone(x) >= 0).all()


def test_weights_as_torchvision_names_them(tmp_path: Path) -> None:
    reference = moved(models.get_model("shufflenet_v2_x0_5", weights=None)).eval()
    weights = saved(reference, tmp_path / "weights.pth")
    backbone = made(SHUFFLENET, mode="whole", weights=weights).eval()
    x = images(2, *SMALL)
    assert_close(backbone(x), reference(x))
    assert_close(backbone.normalisation, IMAGENET)
    # A state of its own then keeps the preparation too.
    again = made(
        SHUFFLENET, mode="fixed", weights=saved(backbone, tmp_path / "own.pth"), side=32
    ).eval()
    assert_close(again(x), reference(x))
    assert_close(again.normalisation, IMAGENET)


def test_the_last_layer_may_have_been_of_other_classes(tmp_path: Path) -> None:
    reference = moved(models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=7)).eval()
    settings = {"mode": "whole", "weights": saved(reference, tmp_path / "weights.pth")}
    backbone = made(SHUFFLENET, features="penultimate", **settings).eval()
    x = images(2, *SMALL)
    assert_close(reference.fc(backbone(x)), reference(x))
    with pytest.raises(SettingError, match=r"those of torchvision's shuffle.*fc\.weight"):
        made(SHUFFLENET, **settings)


def test_side_outputs_in_a_file_are_left_out(tmp_path: Path) -> None:
    reference = models.googlenet(weights=None, init_weights=False, transform_input=True).eval()
    weights = saved(moved(reference), tmp_path / "weights.pth")
    backbone = made("torchvision:googlenet", mode="fixed", weights=weights)
    x = images(2, *SMALL)
    assert_close(backbone(x), reference(x))


def test_weights_are_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {
        name: torch.full_like(value, 0.01)
        for name, value in models.get_model("shufflenet_v2_x0_5").state_dict().items()
    }
    enum = models.ShuffleNet_V2_X0_5_Weights
    monkeypatch.setattr(enum, "get_state_dict", lambda *args, **kwargs: state)
    backbone = made(SHUFFLENET, mode="fixed", weights="download")
    assert all((p == 0.01).all() for p in backbone.parameters())
    assert_close(backbone.normalisation, IMAGENET)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(enum, "get_state_dict", fail)
    with pytest.raises(SettingError, match=r"no route.*Give a file: `weights`: WEIGHTS.pth .*http"):
        made(SHUFFLENET, mode="fixed", weights="download")


SPLITS: list[tuple[dict[str, Any], int, int]] = [
    ({"mode": "whole"}, 0, 3),
    ({"mode": "last", "n_last": 2}, 2, 1),
    ({"mode": "last", "n_last": 1, "hidden": 8}, 3, 0),
    ({"mode": "fixed", "hidden": 8}, 4, 0),
    ({"mode": "fixed"}, 4, 0),
]


@pytest.mark.parametrize(("settings", "n_frozen", "n_convolutional"), SPLITS)
def test_the_frozen_stages_can_be_computed_once(
    own: str, settings: dict[str, Any], n_frozen: int, n_convolutional: int
) -> None:
    backbone = made("convnet", width=4, weights=own, **settings).train()
    frozen, rest = backbone.split()
    assert (len(frozen.stages), rest.n_convolutional) == (n_frozen, n_convolutional)
    assert rest.shapes == backbone.shapes[n_frozen:] and rest.training
    assert rest.n_features == backbone.n_features
    # Frozen stages keep to their batch statistics, whatever mode they are put in.
    frozen.train()
    x = images(7, *SMALL)
    features = frozen_features(frozen, x, batch_size=3)
    assert features.shape[1:] == frozen.shapes[-1] == rest.shapes[0]
    assert not features.requires_grad
    assert_close(rest(features), backbone(x))
    assert list(map(id, rest.parameters())) == [
        id(p) for p in backbone.parameters() if p.requires_grad
    ]


def test_the_rest_of_a_split_is_a_backbone(own: str) -> None:
    # As an architecture uses it: each task its own copy of what is trained, on the same features.
    def backbone() -> Backbone:
        return make_backbone("convnet", SMALL, width=4, mode="fixed", weights=own, hidden=8)

    frozen, _ = backbone().split()
    network = make_network("independent", lambda: backbone().split()[1], [2, 2])
    outputs = network(frozen_features(frozen, images(3, *SMALL)))
    assert [tuple(output.shape) for output in outputs] == [(3, 2), (3, 2)]


def test_a_fixed_vgg16_trains_as_few_parameters_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Weights that take no memory; nor is time spent on drawing those that they replace.
    with torch.device("meta"):
        shapes = {name: v.shape for name, v in models.vgg16(weights=None).state_dict().items()}
    monkeypatch.setattr(
        models.VGG16_Weights,
        "get_state_dict",
        lambda *args, **kwargs: {n: torch.zeros(()).expand(shape) for n, shape in shapes.items()},
    )
    for draw in ("kaiming_normal_", "kaiming_uniform_", "normal_"):
        monkeypatch.setattr(nn.init, draw, lambda tensor, *args, **kwargs: tensor)
    settings = {"mode": "fixed", "weights": "download", "hidden": 64}
    network = make_network(
        "hard-sharing", lambda: make_backbone("torchvision:vgg16", SMALL, **settings), [8]
    )
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == 1000 * 64 + 64 + 64 * 8 + 8 == 64_584
    assert sum(p.numel() for p in network.parameters()) == 138_357_544 + trained


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("lenett", {}, "known one, got 'lenett'; did you mean 'lenet'"),
        ("torchvision", {}, "did you mean 'torchvision:NAME'"),
        ("torchvision:", {}, "did you mean 'torchvision:NAME'"),
        ("lenet:5", {}, "did you mean 'lenet'"),
        ("torchvision:resnet81", {}, "must be torchvision:NAME .*did you mean 'resnet18'"),
        ("torchvision:squeezenet1_0", {"features": "penultimate", "side": 64}, "a linear layer"),
        ("torchvision:alexnet", {}, r"got 32 x 32 \(.*\); set its `side`, such as 224"),
        ("torchvision:vit_b_32", {}, r"got 32 x 32 \(.*224.*\); set its `side`, such as 224"),
        (RESNET, {"features": "last"}, "`features` .* must be one of output, penultimate"),
        (RESNET, {"side": -1}, "`side` .* must be a whole number of at least 0"),
        (RESNET, {"sid": 3}, "`sid` is not a setting .* did you mean 'side'"),
        ("resnet", {"depth": 18}, "`depth` .* 6n . 2, got 18; the nearest are 14 and 20"),
        ("resnet", {"depth": 9}, "got 9; the nearest are 8 and 14"),
        ("resnet", {"depth": 2}, "`depth` .* at least 8, got 2"),
        ("lenet", {"mode": "frozen"}, "`mode` .* one of scratch, whole, last, fixed"),
        ("lenet", {"mode": "fixed"}, "`weights` .* given in mode fixed, got none; give a file, or"),
        (RESNET, {"mode": "whole"}, "given in mode whole, got none; give download or a file"),
        ("lenet", {"weights": "a.pth"}, "`weights` .* empty in mode scratch, got 'a.pth'"),
        ("lenet", {"mode": "last", "weights": "download"}, "must be a file, .* got 'download'"),
        ("lenet", {"mode": "last", "weights": 3}, "`weights` .* must be a file of weights, down"),
        ("lenet", {"mode": "last", "weights": "no.pth"}, "got 'no.pth', which is no file"),
        ("lenet", {"hidden": -1}, "`hidden` .* at least 0, got -1"),
        ("lenet", {"n_last": 0}, "`n_last` .* at least 1, got 0"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence) as caught:
        made(name, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("lenet", (3, 15, 32), "at least 16 x 16 pixels for backbone 'lenet', got 15 x 32"),
        ("convnet", (3, 32, 7), "at least 8 x 8 pixels for backbone 'convnet', got 32 x 7"),
        (RESNET, (1, 32, 32), "3 channels for backbone 'torchvision:resnet18', got 1"),
    ],
)
def test_bad_images(name: str, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        made(name, shape)


def test_more_stages_than_there_are(own: str) -> None:
    with pytest.raises(SettingError, match=r"`n_last` .* at most 4, .* got 5; .* `mode` to whole"):
        made("convnet", width=4, mode="last", n_last=5, weights=own, hidden=8)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"junk", "`weights` of backbone 'convnet' must be a file of tensors, .* cannot be read"),
        (b"", "cannot be read"),
        (nn.Linear(2, 2), "cannot be read without running what it holds"),
        ({"epoch": 3}, "tensors by name, got something else"),
        ({}, "tensors by name, got something else"),
        ({"fc.weight": torch.zeros(3, 3)}, "those of backbone 'convnet' with these settings, got"),
        ({"stages.0.0.weight": torch.zeros(3, 3)}, "others .Missing key"),
    ],
)
def test_bad_weights(tmp_path: Path, content: Any, sentence: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(SettingError, match=sentence) as caught:
        made("convnet", mode="fixed", weights=str(path))
    assert re.search(re.escape(str(path)), str(caught.value)) and "\n" not in str(caught.value)


def test_weights_of_another_network(own: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="backbone 'lenet' with these settings, got others"):
        made("lenet", mode="whole", weights=own)
    with pytest.raises(SettingError, match=r"backbone 'convnet' .*size mismatch"):
        made("convnet", width=8, mode="whole", weights=own)
    other = saved(models.get_model("squeezenet1_0", weights=None), tmp_path / "other.pth")
    with pytest.raises(
        SettingError, match=r"torchvision's resnet18, got others .*name the network"
    ):
        made(RESNET, mode="whole", weights=other)
