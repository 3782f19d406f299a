"""Do features of a randomly initialised CIFAR ResNet serve instead of pixels?"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from taskdisc.config import ImagesSettings, NamedProtocol, Settings
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import COLOURS, band, figure_of
from taskdisc.studies.estimates import mean_and_sem, plus_minus, sign_of
from taskdisc.studies.images import check_by_class, class_labelings, drawn
from taskdisc.studies.study import ALL_IMAGES, Answer, Cell, Plot, Record, Study
from taskdisc.taskness.protocol import Protocol
from taskdisc.taskness.score import Splits, all_splits, losses_of, read_out

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCKS = {16: ("layer2", 128), 8: ("layer3", 256), 4: ("layer4", 512)}
"""By side [pixels] of its maps: the last group of blocks of the network, and its channels."""

BATCH = 250
"""Images whose statistics normalise them together."""

PIXELS = "pixels"
AVERAGED = "averaged pixels"
MEAN = "mean of initialisations"
ENSEMBLE = "ensemble"


class RandomFeaturesSettings(Settings):
    """The networks whose features are taken, and the class labelings that are trained on them."""

    images: ImagesSettings = ImagesSettings(n_classes=4, per_class=20)
    outputs: tuple[Literal[16, 8, 4], ...] = Field((8, 4), min_length=1)  # sides of the maps
    n_initialisations: int = Field(6, ge=2)
    n_labelings: int = Field(1, ge=1)  # classes that stand against the others, per repeat
    n_seeds: int = Field(2, ge=2)
    protocol: NamedProtocol = ALL_IMAGES
    seed: int = Field(0, ge=0)

    @field_validator("outputs")
    @classmethod
    def _different(cls, outputs: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(outputs)) < len(outputs):
            raise SettingError(f"`outputs` must be different sides, got {list(outputs)}.")
        return outputs


def cells(settings: RandomFeaturesSettings) -> list[Cell]:
    """All initialisations of an output, for the ensemble needs them together; then the pixels."""
    check_by_class(settings.images, settings.protocol)
    if settings.n_labelings > (settings.images.n_classes or 0):
        raise SettingError(
            "`n_labelings` must be at most `images.n_classes` = "
            f"{settings.images.n_classes}, got {settings.n_labelings}."
        )
    return [
        {"seed": number, "inputs": inputs}
        for kinds in (settings.outputs, (PIXELS,))
        for number in range(settings.n_seeds)
        for inputs in kinds
    ]


def measure(
    settings: RandomFeaturesSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """By name of the inputs: taskness and validation curve, means over labelings and splits.

    The same splits, initialisations of the LeNet and steps for all inputs. Curves are cross-entropy
    [nats] after every step.
    """
    images = drawn(settings.images, seed=settings.images.seed + cell["seed"])
    labelings = list(class_labelings(images, settings.images.target).values())
    scorer = _Scorer(
        np.array(labelings[: settings.n_labelings]),
        settings.protocol,
        settings.seed + cell["seed"],
        pool.devices[0],
    )
    scores = {}
    probability = np.zeros(())
    for name, inputs in _inputs(settings, cell["inputs"], images, pool.devices[0]):
        losses = scorer.losses(inputs)
        scores[name] = scorer.read(losses)
        probability = probability + np.exp(-losses)
    if cell["inputs"] != PIXELS:
        mean = probability / settings.n_initialisations
        # A network that is sure and wrong leaves a probability that float32 calls 0.
        scores[ENSEMBLE] = scorer.read(-np.log(np.maximum(mean, np.finfo(mean.dtype).tiny)))
    return {"scores": scores, "baseline": round(float(scorer.baseline.mean()), 5)}


def _inputs(
    settings: RandomFeaturesSettings, kind: int | str, images: ImageSet, device: str
) -> "Iterator[tuple[str, Tensor]]":
    """Names and what LeNets are trained on in a cell, [n_images, 3, 32, 32]."""
    from torch.nn import functional as F

    from taskdisc.taskness.lenet import standardised

    pixels = standardised(np.asarray(images.images)).to(device)
    if kind == PIXELS:
        yield PIXELS, pixels
        for side in settings.outputs:
            yield _averaged(side), enlarged(F.adaptive_avg_pool2d(pixels, side))
        return
    for number in range(settings.n_initialisations):
        # The same networks in every repeat, so that they can be told from its images.
        seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
        yield _initialisation(number), enlarged(random_maps(pixels, int(kind), seed))


def _averaged(side: int) -> str:
    return f"{AVERAGED} {side}"


def _initialisation(number: int) -> str:
    return f"initialisation {number + 1}"


def random_network(side: int, seed: int) -> "nn.Module":
    """An untrained ResNet-18 for 32x32 images up to maps [n, 3, side, side].

    He et al. 2016, "Deep residual learning", in the form that is usual for CIFAR: a first
    convolution of 3x3 and stride 1, no max-pooling. A random 1x1 convolution ends it. The seed
    alone decides; the global generator is left as it was.
    """
    import torch
    from torch import nn
    from torchvision.models.resnet import BasicBlock, ResNet

    last, n_channels = BLOCKS[side]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = ResNet(BasicBlock, [2, 2, 2, 2])
        first = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        to_three = nn.Conv2d(n_channels, 3, 1, bias=False)
    layers = [first, network.bn1, network.relu]
    for name in ("layer1", "layer2", "layer3", "layer4"):
        layers.append(getattr(network, name))
        if name == last:
            break
    return nn.Sequential(*layers, to_three)


def random_maps(pixels: "Tensor", side: int, seed: int) -> "Tensor":
    """Maps [n, 3, side, side] that an untrained network makes of standardised pixels.

    Batch statistics keep the scale of every layer sane. Images come class by class, so a batch
    takes every so many of them: else its statistics would say which classes it holds.
    """
    import torch

    network = random_network(side, seed).to(pixels.device).train()
    n_batches = -(-len(pixels) // BATCH)
    maps = pixels.new_empty(len(pixels), 3, side, side)
    with torch.no_grad():
        for start in range(n_batches):
            maps[start::n_batches] = network(pixels[start::n_batches])
    return maps


def enlarged(maps: "Tensor") -> "Tensor":
    """Maps [n, 3, side, side] at 32x32, bilinear, every channel at mean 0 and s.d. 1 as pixels."""
    from torch.nn import functional as F

    from taskdisc.taskness.lenet import SIDE

    x = F.interpolate(maps, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    std = x.std(dim=(0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / std.clamp_min(1e-5)


class _Scorer:
    """Trains LeNets on some labelings, whatever stands for the images, and reads the losses out."""

    def __init__(self, labelings: np.ndarray, protocol: Protocol, seed: int, device: str) -> None:
        from taskdisc.taskness.baselines import blind_curves, informed

        self._protocol, self._device = protocol, device
        self._n_steps = protocol.steps(labelings.shape[1])
        self._splits: Splits = all_splits(protocol, labelings, seed)
        s = self._splits
        blind = blind_curves(s.labels, s.validation, s.seeds, self._n_steps, protocol.lr)
        self.baseline = (informed(s.labels, s.validation) + read_out(blind)) / 2  # of every network

    def losses(self, inputs: "Tensor") -> np.ndarray:
        """Cross-entropy [nats] of every image under its label [n_steps + 1, n_models, n_images]."""
        from taskdisc.taskness.convolutions import lay_out

        protocol = self._protocol
        parts = losses_of(lay_out(inputs), self._splits, self._n_steps, protocol.lr, self._device)
        return np.concatenate([part.cpu().numpy() for part in parts], axis=1)

    def read(self, losses: np.ndarray) -> dict[str, Any]:
        """Taskness and validation curve of losses, means over the networks."""
        validation = (losses * self._splits.validation_share).sum(axis=2).T
        taskness = (self.baseline - read_out(validation)) / self.baseline
        return {
            "taskness": float(taskness.mean()),
            "validation": validation.mean(axis=0).round(5).tolist(),
        }


def answer(settings: RandomFeaturesSettings, records: list[Record]) -> Answer:
    """Taskness on features, by output and initialisation, beside that on pixels."""
    found = _Found(settings, records)
    table = [
        _row(output, name, found)
        for output in settings.outputs
        for name in (*found.members, MEAN, ENSEMBLE, _averaged(output), PIXELS)
    ]
    plots = {
        "validation": _draw_curves(settings, found),
        "difference": _draw_differences(table, found),
    }
    return Answer(table, _reading(settings, found), plots)


class _Found:
    """What was measured, by output and name of the inputs, with the repeats first."""

    def __init__(self, settings: RandomFeaturesSettings, records: list[Record]) -> None:
        self.n_seeds = settings.n_seeds
        self.members = [_initialisation(i) for i in range(settings.n_initialisations)]
        self._scores = {(record["seed"], record["inputs"]): record["scores"] for record in records}
        self.baseline = np.mean([record["baseline"] for record in records])

    def taskness(self, output: int, name: str) -> np.ndarray:
        """Taskness in every repeat [n_seeds]."""
        return self._values(output, name, "taskness")

    def validation(self, output: int, name: str) -> np.ndarray:
        """Validation curves [n_seeds, n_steps + 1]."""
        return self._values(output, name, "validation")

    def _values(self, output: int, name: str, what: str) -> np.ndarray:
        if name == MEAN:
            return np.mean([self._values(output, member, what) for member in self.members], axis=0)
        inputs = PIXELS if name.startswith((PIXELS, AVERAGED)) else output
        return np.array([self._scores[k, inputs][name][what] for k in range(self.n_seeds)])


def _row(output: int, name: str, found: _Found) -> dict[str, Any]:
    taskness = found.taskness(output, name)
    row: dict[str, Any] = {
        "output": f"3×{output}×{output}",
        "inputs": AVERAGED if name == _averaged(output) else name,
        "repeats": found.n_seeds,
        "taskness": float(taskness.mean()),
        "taskness_sem": float(mean_and_sem(taskness)[1]),
    }
    others = {"pixels": PIXELS, "averaged": _averaged(output)}
    for short, other in others.items():
        mean, sem = mean_and_sem(taskness - found.taskness(output, other))
        row |= {f"minus_{short}": float(mean), f"minus_{short}_sem": float(sem)}
    return row


def _reading(settings: RandomFeaturesSettings, found: _Found) -> str:
    sentences = [
        f"On pixels the taskness of a class against {(settings.images.n_classes or 0) - 1} others "
        f"is {plus_minus(found.taskness(0, PIXELS))} (± s.e. over {found.n_seeds} repeats with "
        f"other classes and images, {settings.n_labelings} "
        f"class{'es' if settings.n_labelings > 1 else ''} in each)."
    ]
    for output in settings.outputs:
        mean = found.taskness(output, MEAN)
        ensemble = found.taskness(output, ENSEMBLE)
        averaged = found.taskness(output, _averaged(output))
        pixels = found.taskness(output, PIXELS)
        of_each = [found.taskness(output, name).mean() for name in found.members]
        sentences.append(
            f"On random features of 3×{output}×{output} it is {plus_minus(mean)}, "
            f"{_against(mean - pixels)} on pixels, and {_against(mean - averaged)} on pixels "
            f"averaged to {output}×{output}, which themselves have {plus_minus(averaged)}; the "
            f"s.d. over the {len(of_each)} initialisations is {np.std(of_each, ddof=1):.3f}. Their "
            f"ensemble has {plus_minus(ensemble)}: {_against(ensemble - mean)} for the mean of its "
            f"members, and {_against(ensemble - pixels)} on pixels."
        )
    sentences.append(
        "All differences are paired over the repeats. Averaging several networks helps by itself; "
        "no ensemble of networks on pixels stands beside."
    )
    return " ".join(sentences)


def _against(difference: np.ndarray) -> str:
    """A difference in words: `0.120 ± 0.010 lower than`."""
    mean, sem = mean_and_sem(difference)
    size = f"{abs(mean):.3f} ± {sem:.3f}"
    doubt = "" if sign_of(difference) else " (which 95 % intervals do not tell from 0)"
    return f"{size} {'higher' if mean > 0 else 'lower'}{doubt} than"


def _draw_curves(settings: RandomFeaturesSettings, found: _Found) -> Plot:
    outputs = settings.outputs
    figure, panels = figure_of(len(outputs), width=5, share_y=True)
    for axes, output in zip(panels, outputs, strict=True):
        for number, name in enumerate(found.members):
            curve = found.validation(output, name).mean(axis=0)
            label = "one initialisation" if number == 0 else None
            (line,) = axes.plot(curve, linestyle="-", marker="", color=COLOURS[0], label=label)
            line.set(linewidth=0.6, alpha=0.6)
        shown = {
            MEAN: ("-", "o"),
            ENSEMBLE: ("--", "s"),
            PIXELS: ("-.", "^"),
            _averaged(output): (":", "D"),
        }
        for number, (name, (dashes, marker)) in enumerate(shown.items()):
            curves = found.validation(output, name)
            steps = np.arange(curves.shape[1])
            style = {"linestyle": dashes, "marker": marker, "color": COLOURS[number]}
            label = f"pixels averaged to {output}×{output}" if number == 3 else name
            band(axes, steps, curves, label, markevery=max(1, len(steps) // 6), **style)
        axes.axhline(found.baseline, color="0.5", linewidth=0.8, marker="", label="baseline")
        axes.set(title=f"features 3×{output}×{output}", xlabel="training step")
        axes.legend(fontsize="small")
    panels[0].set_ylabel("validation cross-entropy [nats]")
    return Plot(
        figure,
        f"Validation curves of LeNets on features of untrained networks. Bands: ± s.e. over "
        f"{found.n_seeds} repeats with other classes and images; thin lines are means over them. "
        "Baseline: b, the mean of both baselines.",
    )


def _draw_differences(table: list[dict[str, Any]], found: _Found) -> Plot:
    outputs = list(dict.fromkeys(row["output"] for row in table))
    figure, panels = figure_of(len(outputs), width=5, share_y=True)
    for axes, output in zip(panels, outputs, strict=True):
        rows = [row for row in table if row["output"] == output and row["inputs"] != PIXELS]
        bars = [row["minus_pixels_sem"] for row in rows]
        y = np.arange(len(rows))[::-1]
        axes.errorbar([row["minus_pixels"] for row in rows], y, xerr=bars, linestyle="", capsize=3)
        axes.axvline(0, color="0.4", linestyle=":", marker="")
        axes.set_yticks(y, [row["inputs"] for row in rows])
        axes.set(title=f"features {output}", xlabel="taskness less that on pixels")
    for axes in panels[1:]:
        panels[0].sharex(axes)
    return Plot(
        figure,
        "Taskness by what the LeNet is trained on, less its taskness on pixels. Bars: ± s.e. of "
        f"the paired differences over {found.n_seeds} repeats with other classes and images.",
    )


STUDY = Study(
    "do features of a randomly initialised CIFAR ResNet serve instead of pixels?",
    RandomFeaturesSettings,
    cells,
    measure,
    answer,
    check=lambda settings: drawn(settings.images),
)
