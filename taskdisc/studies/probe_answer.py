"""What linear probes say of the tasks that trained a backbone: table, reading and plot."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.mtl.auxiliaries import CLASSES, RANDOM, named
from taskdisc.mtl.backbones import BACKBONES
from taskdisc.paper import Paper
from taskdisc.studies.drawing import band, figure_of
from taskdisc.studies.estimates import (
    finite,
    interval,
    mean_and_sem,
    plus_minus,
    sign_of,
    with_interval,
)
from taskdisc.studies.study import Answer, Plot, Record

if TYPE_CHECKING:
    from taskdisc.studies.probe import ProbeSettings

UNTRAINED, ROTATION = "untrained", "rotation"
BUILT_IN = (UNTRAINED, ROTATION)
"""Rows that are always there."""

PAPERS = {
    "linear probe": Paper(
        "Alain & Bengio",
        2016,
        "Understanding Intermediate Layers Using Linear Classifier Probes",
        "https://arxiv.org/abs/1610.01644",
    ),
    ROTATION: Paper(
        "Gidaris et al.",
        2018,
        "Unsupervised Representation Learning by Predicting Image Rotations",
        "https://arxiv.org/abs/1803.07728",
    ),
}


class Results:
    """The records of the study by row.

    Attributes:
        names: Of the rows, those that are always there first.
        references: Of them, those that all others are held against.
        labelled: Numbers of labelled images.
        records: Of each row, one per seed, in the order of the seeds.
        accuracy: Of each row, [n_seeds, n_numbers].
    """

    def __init__(self, settings: "ProbeSettings", records: Sequence[Record]) -> None:
        self.names = [*BUILT_IN, *settings.sources]
        self.references = [name for name in (UNTRAINED, RANDOM) if name in self.names]
        self.labelled = list(settings.labelled)
        self.records: dict[str, list[Record]] = {name: [] for name in self.names}
        for record in sorted(records, key=lambda record: record["seed"]):
            self.records[record["source"]].append(record)
        self.accuracy = {name: self.probes(name, "accuracy") for name in self.names}

    def probes(self, name: str, column: str) -> np.ndarray:
        """A column of a row's probes, [n_seeds, n_numbers]."""
        return np.array(
            [[probe[column] for probe in record["probes"]] for record in self.records[name]]
        )

    def gains(self, name: str, reference: str) -> np.ndarray:
        """Paired differences in accuracy of a row to another one, [n_seeds, n_numbers]."""
        return self.accuracy[name] - self.accuracy[reference]

    def pretext(self, name: str, column: str) -> np.ndarray:
        """Accuracy of a row in what trained it, or blind, [n_seeds]; NaN of the untrained."""
        return np.array([r[column].get("accuracy") for r in self.records[name]], dtype=float)


def answer_of(settings: "ProbeSettings", records: Sequence[Record]) -> Answer:
    """One line per number of labels and row."""
    results = Results(settings, records)
    places = [(number, name) for number in range(len(results.labelled)) for name in results.names]
    backbone = settings.common.backbone.name
    of_backbone = BACKBONES[backbone].paper if backbone in BACKBONES else None
    return Answer(
        [_line(results, *place) for place in places],
        _reading(settings, results),
        {"accuracy": _draw(settings, results)},
        summary=[_short(results, *place) for place in places],
        tables={"seeds": _seeds(results)},
        papers=PAPERS | ({backbone: of_backbone} if of_backbone else {}),
    )


def _line(results: Results, number: int, name: str) -> dict[str, Any]:
    records = results.records[name]
    mean, sem = mean_and_sem(results.accuracy[name][:, number])
    line: dict[str, Any] = {
        "labelled": results.labelled[number],
        "source": name,
        "n_seeds": len(records),
        "accuracy": finite(mean),
        "s.e.": finite(sem),
    }
    for reference in results.references:
        gains = results.gains(name, reference)[:, number]
        if name == reference:
            gains = np.full(len(gains), np.nan)
        low, high = interval(gains)
        line |= {
            f"gain on {reference}": finite(mean_and_sem(gains)[0]),
            f"gain on {reference}: from": finite(low),
            f"gain on {reference}: to": finite(high),
        }
    return line | {
        "C": float(np.median(results.probes(name, "c")[:, number])),
        "pretext": finite(mean_and_sem(results.pretext(name, "pretext"))[0]),
        "pretext: blind": finite(mean_and_sem(results.pretext(name, "blind"))[0]),
        "seconds": float(np.mean([record["seconds"] for record in records])),
    }


def _short(results: Results, number: int, name: str) -> dict[str, Any]:
    """A line of the table, to be read."""
    line = _line(results, number, name)
    short: dict[str, Any] = {
        "labelled": line["labelled"],
        "source": name,
        "accuracy": plus_minus(results.accuracy[name][:, number]),
    }
    for reference in results.references:
        short[f"gain on {reference} [95 %]"] = (
            None if name == reference else with_interval(results.gains(name, reference)[:, number])
        )
    known = line["pretext"] is not None
    return short | {
        "C": f"{line['C']:g}",
        "pretext (blind)": f"{line['pretext']:.3f} ({line['pretext: blind']:.3f})"
        if known
        else None,
        "seconds": f"{line['seconds']:.1f}",
    }


def _seeds(results: Results) -> list[dict[str, Any]]:
    """A line per row, seed and number of labels."""
    return [
        {
            "source": name,
            "seed": record["seed"],
            **probe,
            "pretext": record["pretext"].get("accuracy"),
            "epoch": record["epoch"],
            "seconds": record["seconds"],
        }
        for name, records in results.records.items()
        for record in records
        for probe in record["probes"]
    ]


def _reading(settings: "ProbeSettings", results: Results) -> str:
    first = results.records[UNTRAINED][0]
    n = settings.seeds
    sentences = [
        f"Over {n} seed{'s' if n > 1 else ''}: accuracy in '{settings.of}' on {first['n_test']} "
        f"test images, of linear probes of {first['n_features']} features."
    ]
    for number, labelled in enumerate(results.labelled):
        level = plus_minus(results.accuracy[UNTRAINED][:, number])
        sentences.append(f"With {labelled} labels an untrained backbone gives {level}.")
        sentences += [_against(results, reference, number) for reference in results.references]
    human = [name for name, aux in settings.sources.items() if named(aux).kind == CLASSES]
    if human:
        sentences.append(
            f"{_listed(human)} had the classes of all training images, which say more than the "
            "labels of the probe: what known tasks give, not what can be had without labels."
        )
    sentences.append(
        "Intervals are 95 %, by Student's t over seeds; each is looked at by itself."
        if n > 1
        else "A single seed has no spread: no row can be told from another by it."
    )
    return " ".join(sentences)


def _against(results: Results, reference: str, number: int) -> str:
    """Which rows are better or worse than another one, by intervals."""
    others = [name for name in results.names if name != reference]
    gains = {name: results.gains(name, reference)[:, number] for name in others}
    said = []
    for word, sign in (("better", 1), ("worse", -1), ("not told apart", 0)):
        found = [name for name in others if sign_of(gains[name]) == sign]
        if found:
            each = (f"'{name}' {with_interval(gains[name])}" for name in found)
            said.append(f"{word}: {', '.join(each)}")
    return f"Against '{reference}', {'; '.join(said)}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _draw(settings: "ProbeSettings", results: Results) -> Plot:
    figure, (axes,) = figure_of(1, width=6.5, height=4.2)
    for name in results.names:
        band(axes, results.labelled, results.accuracy[name], name)
    axes.set_xscale("log")
    axes.set_xticks(results.labelled, [f"{n:,}" for n in results.labelled])
    axes.minorticks_off()
    axes.set(xlabel="labelled images", ylabel=f"test accuracy of the probe: {settings.of}")
    axes.legend(title="trained on", fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    n = settings.seeds
    return Plot(
        figure,
        "A linear probe of frozen features, by what the backbone was trained on. "
        + (f"Bands: ± s.e. over {n} seeds." if n > 1 else "One seed, without a spread."),
    )
