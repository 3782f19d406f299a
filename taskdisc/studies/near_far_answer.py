"""What near and far pairs say of auxiliary tasks: table, reading and plots."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from taskdisc.studies.drawing import COLOURS, MARKERS, band, figure_of
from taskdisc.studies.estimates import (
    finite,
    interval,
    mean_and_sem,
    plus_minus,
    sign_of,
    with_interval,
)
from taskdisc.studies.multi_task_answer import epochs_of, papers_of, seeds_of
from taskdisc.studies.multi_task_rows import BLIND, single_rows
from taskdisc.studies.study import Answer, Plot, Record

if TYPE_CHECKING:
    from taskdisc.studies.multi_task import ComparisonSettings
    from taskdisc.studies.near_far import NearFarSettings

FIRST = "first"
"""The main task: the first class of a pair against all else."""

METRICS = ("average-precision", "balanced-accuracy")
"""Of the main task; the first chooses the epoch."""

COSINES = ("cosine-weighted", "cosine-unweighted")
"""The weightings that are said never to hurt the main task."""


class Place(NamedTuple):
    """One or several pairs whose results are looked at together: their mean, seed by seed."""

    group: str
    name: str
    pairs: tuple[str, ...]


class Results:
    """The records of the study: the main task's test metrics by pair and row.

    Attributes:
        pairs: Names of all pairs.
        groups: The mean of each group's pairs, by its name.
        places: Each pair of a group, then the mean of the group.
        rows: Names of the rows with an auxiliary, in their order.
        single_of: For each of them the row of the first class alone that it is held against.
        names: Rows of the first class alone, then the others.
        seeds: In their order.
        records: By pair and row, one per seed.
    """

    def __init__(
        self,
        settings: "NearFarSettings",
        comparison: "ComparisonSettings",
        records: Sequence[Record],
    ) -> None:
        self.pairs = [name for of_group in settings.pairs.values() for name in of_group]
        self.groups: dict[str, Place] = {}
        self.places: list[Place] = []
        for group, of_group in settings.pairs.items():
            whole = Place(group, f"mean of {len(of_group)}", tuple(of_group))
            self.groups[group] = whole
            self.places += [*(Place(group, name, (name,)) for name in of_group), whole]
        self.rows = list(settings.rows)
        self.single_of = single_rows(comparison)
        self.names = [*dict.fromkeys(self.single_of.values()), *self.rows]
        self.seeds = list(range(settings.seed, settings.seed + settings.seeds))
        self.records: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            self.records.setdefault((record["pair"], record["row"]), []).append(record)

    def values(self, place: Place, row: str, metric: str) -> np.ndarray:
        """The test metric [n_seeds], of several pairs their mean; NaN where it has no value."""
        if row == BLIND:
            row, column = self.names[0], "blind"
        else:
            column = "test"
        of_pairs = [
            [record[column][FIRST][metric] for record in self.records[pair, row]]
            for pair in place.pairs
        ]
        return np.array(of_pairs, dtype=float).mean(axis=0)

    def gains(self, place: Place, row: str, metric: str) -> np.ndarray:
        """The same less that of the first class alone, from the same seeds [n_seeds]."""
        alone = self.values(place, self.single_of[row], metric)
        return self.values(place, row, metric) - alone

    def curves(self, place: Place, row: str, metric: str) -> np.ndarray:
        """The validation metric [n_seeds, n_epochs], of several pairs their mean."""
        return np.array(
            [
                [
                    [epoch["validation"][_number(record)][metric] for epoch in record["epochs"]]
                    for record in self.records[pair, row]
                ]
                for pair in place.pairs
            ],
            dtype=float,
        ).mean(axis=0)

    def cosines(self, place: Place, row: str) -> np.ndarray:
        """Cosine of the first two tasks' gradients [n_seeds, n_epochs], of several pairs a mean."""
        return np.array(
            [
                [[epoch["cosines"][0][1] for epoch in record["epochs"]] for record in of_pair]
                for of_pair in (self.records[pair, row] for pair in place.pairs)
            ],
            dtype=float,
        ).mean(axis=0)

    def with_auxiliary(self) -> list[str]:
        """Rows of two tasks or more, whose gradients have an angle."""
        return [name for name in self.rows if len(self.records[self.pairs[0], name][0]["test"]) > 1]


def _number(record: Record) -> int:
    """The main task's number among those of its training."""
    return list(record["test"]).index(FIRST)


def answer_of(
    settings: "NearFarSettings", comparison: "ComparisonSettings", records: Sequence[Record]
) -> Answer:
    """One line per pair, or mean of a group, and row; rows are those of any pair's comparison."""
    results = Results(settings, comparison, records)
    lines = [(place, row) for place in results.places for row in (BLIND, *results.names)]
    plots = {
        "epochs": _draw_epochs(results, METRICS[0]),
        "gains": _draw_gains(results, METRICS[0]),
        "epochs-balanced": _draw_epochs(results, METRICS[1]),
        "gains-balanced": _draw_gains(results, METRICS[1]),
    }
    return Answer(
        [_line(results, place, row) for place, row in lines],
        _reading(settings, results),
        plots | _draw_cosines(results),
        summary=[_short(results, place, row) for place, row in lines],
        tables={
            "seeds": _by_pair(results, records, seeds_of),
            "epochs": _by_pair(results, records, epochs_of),
        },
        papers=papers_of(comparison),
    )


def _by_pair(results: Results, records: Sequence[Record], table_of: Any) -> list[dict[str, Any]]:
    return [
        {"pair": pair, **line}
        for pair in results.pairs
        for line in table_of([record for record in records if record["pair"] == pair])
    ]


def _line(results: Results, place: Place, row: str) -> dict[str, Any]:
    line: dict[str, Any] = {
        "group": place.group,
        "pair": place.name,
        "row": row,
        "n_seeds": len(results.seeds),
    }
    for metric in METRICS:
        mean, error = mean_and_sem(results.values(place, row, metric))
        line[metric], line[f"{metric}: s.e."] = finite(mean), finite(error)
        gains = results.gains(place, row, metric) if row in results.rows else np.array([np.nan])
        low, high = interval(gains)
        line |= {
            f"gain in {metric}": finite(mean_and_sem(gains)[0]),
            f"gain in {metric}: from": finite(low),
            f"gain in {metric}: to": finite(high),
        }
    of_row = [r for pair in place.pairs for r in results.records.get((pair, row), [])]
    has_cosine = row in results.with_auxiliary()
    return line | {
        "cosine": finite(mean_and_sem(results.cosines(place, row).ravel())[0])
        if has_cosine
        else None,
        "epoch": float(np.mean([r["epoch"] for r in of_row])) if of_row else None,
        "seconds": float(np.mean([r["seconds"] for r in of_row])) if of_row else None,
    }


def _short(results: Results, place: Place, row: str) -> dict[str, Any]:
    short: dict[str, Any] = {"pair": f"{place.group}: {place.name}", "row": row}
    line = _line(results, place, row)
    for metric in METRICS:
        short[metric] = plus_minus(results.values(place, row, metric))
        known = row in results.rows
        short[f"gain in {metric} [95 %]"] = (
            with_interval(results.gains(place, row, metric)) if known else None
        )
    cosine, epoch = line["cosine"], line["epoch"]
    return short | {
        "cosine": None if cosine is None else f"{cosine:+.2f}",
        "epoch": None if epoch is None else f"{epoch:.0f}",
    }


def _reading(settings: "NearFarSettings", results: Results) -> str:
    n, metric = len(results.seeds), METRICS[0]
    levels = ", ".join(
        f"{plus_minus(results.values(whole, results.names[0], metric))} in {group} pairs (blind "
        f"{float(mean_and_sem(results.values(whole, BLIND, metric))[0]):.3f})"
        for group, whole in results.groups.items()
    )
    sentences = [
        f"Over {n} seed{'s' if n > 1 else ''}, on test images, the first class alone reaches an "
        f"average precision of {levels}. Gains on it:"
    ]
    sentences += [_never_hurts(results, row) for row in _cosine_rows(settings, results)]
    decided = (f"{what}: {_decided(gains)}" for what, gains in _questions(results, metric).items())
    sentences.append(f"Of the {len(results.rows)} rows, {'; '.join(decided)}.")
    n_intervals = len(results.pairs) * len(results.rows)
    sentences.append(
        f"Intervals are 95 %, by Student's t over seeds; each is looked at by itself, and of "
        f"{n_intervals} for pairs and rows {n_intervals / 20:.0f} or so miss 0 by chance."
        if n > 1
        else "A single seed has no spread: nothing can be told from chance by it."
    )
    return " ".join(sentences)


def _cosine_rows(settings: "NearFarSettings", results: Results) -> list[str]:
    return [name for name in results.rows if settings.rows[name].weighting.name in COSINES]


def _questions(results: Results, metric: str) -> dict[str, dict[str, np.ndarray]]:
    """Gains [n_seeds] by row, of each group and of the first group less each other one."""
    by_group = {
        group: {row: results.gains(whole, row, metric) for row in results.rows}
        for group, whole in results.groups.items()
    }
    (first, of_first), *others = by_group.items()
    found = {f"{group} pairs": gains for group, gains in by_group.items()}
    for group, gains in others:
        found[f"{first} less {group}"] = {row: of_first[row] - g for row, g in gains.items()}
    return found


def _never_hurts(results: Results, row: str) -> str:
    """What a row gains in each group, in its worst pair, and whether it hurts any pair."""
    groups = ", ".join(
        f"{what} {with_interval(gains[row])}"
        for what, gains in _questions(results, METRICS[0]).items()
    )
    by_pair = {
        pair: results.gains(Place("", pair, (pair,)), row, METRICS[0]) for pair in results.pairs
    }
    worst = min(by_pair, key=lambda pair: float(mean_and_sem(by_pair[pair])[0]))
    said = f"'{row}': {groups}, worst in {worst} {with_interval(by_pair[worst])}"
    hurt = [pair for pair, gains in by_pair.items() if sign_of(gains) < 0]
    if hurt:
        return f"{said}; it hurts {', '.join(hurt)}."
    low = min(interval(gains)[0] for gains in by_pair.values())
    if low >= 0:
        return f"{said}; it hurts no pair."
    less = f", though a loss of {-low:.3f} is not excluded" if np.isfinite(low) else ""
    return f"{said}; these seeds show no pair that it hurts{less}."


def _decided(gains: dict[str, np.ndarray]) -> str:
    """Which rows have gains whose interval is above or below 0."""
    words = {1: "more by", -1: "less by"}
    parts = [
        f"{word} {', '.join(f'{row!r} {with_interval(of_row)}' for row, of_row in rows.items())}"
        for sign, word in words.items()
        if (rows := {row: g for row, g in gains.items() if sign_of(g) == sign})
    ]
    return " and ".join(parts) or "none told from 0"


def _draw_epochs(results: Results, metric: str) -> Plot:
    pairs = [place for place in results.places if place.name in results.pairs]
    figure, grid = figure_of(len(pairs), width=4.0, height=3.2, columns=_columns(results))
    for axes, place in zip(grid, pairs, strict=True):
        for row in results.names:
            curves = results.curves(place, row, metric)
            band(axes, np.arange(1, curves.shape[1] + 1), curves, row, markersize=2)
        blind = results.values(place, BLIND, metric).mean()
        axes.axhline(blind, color="black", linewidth=0.8, linestyle=":", marker="", label=BLIND)
        axes.set_title(f"{place.group}: {place.name}", fontsize=10)
    for axes in grid:
        axes.set(xlabel="epoch")
    grid[0].set_ylabel(f"validation {metric}")
    grid[0].legend(fontsize=6)
    return Plot(
        figure,
        f"Validation {metric.replace('-', ' ')} of the first class. Bands: ± s.e. over "
        f"{len(results.seeds)} seeds.",
    )


def _columns(results: Results) -> int:
    """As many as the largest group has pairs, up to four, so that groups stand in lines."""
    return min(4, max(len(whole.pairs) for whole in results.groups.values()))


def _draw_gains(results: Results, metric: str) -> Plot:
    places = results.places[::-1]
    height = 0.8 + 0.32 * len(places)
    columns = min(3, len(results.rows))
    figure, grid = figure_of(
        len(results.rows), width=3.4, height=height, columns=columns, share_y=True
    )
    groups = list(results.groups)
    for axes in grid[1:]:
        axes.sharex(grid[0])  # so that rows can be compared
    for axes, row in zip(grid, results.rows, strict=True):
        axes.axvline(0, color="black", linewidth=0.8, linestyle="-", marker="")
        for at, place in enumerate(places):
            gains = results.gains(place, row, metric)
            given = gains[np.isfinite(gains)]
            number = groups.index(place.group)
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(given, [at] * len(given), ".", color="grey", markersize=4, alpha=0.6)
            if not len(given):
                continue
            mean, (low, high) = given.mean(), interval(given)
            bar = [[mean - low], [high - mean]] if len(given) > 1 else None
            is_mean = place == results.groups[place.group]
            axes.errorbar(
                mean, at, xerr=bar, fmt=MARKERS[number % len(MARKERS)], color=colour, capsize=3,
                markersize=7 if is_mean else 4, elinewidth=2 if is_mean else 1,
            )  # fmt: skip
        axes.set_title(row, fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        axes.locator_params(axis="x", nbins=4)
        axes.set_yticks(range(len(places)), [f"{p.group}: {p.name}" for p in places], fontsize=8)
    return Plot(
        figure,
        f"Gain in test {metric.replace('-', ' ')} on the first class alone. Dots: seeds. Marks and "
        "bars: mean and 95 % interval over seeds, by Student's t; large ones are means over a "
        "group's pairs.",
    )


def _draw_cosines(results: Results) -> dict[str, Plot]:
    rows = results.with_auxiliary()
    if not rows:
        return {}
    figure, grid = figure_of(
        len(rows), width=3.4, height=2.6, columns=min(3, len(rows)), share_y=True
    )
    for axes, row in zip(grid, rows, strict=True):
        axes.axhline(0, color="black", linewidth=0.8, linestyle="-", marker="")
        for group, whole in results.groups.items():
            curves = results.cosines(whole, row)
            band(axes, np.arange(1, curves.shape[1] + 1), curves, group, markersize=3)
        axes.set_title(row, fontsize=9)
        axes.set(xlabel="epoch")
    grid[0].set_ylabel("cosine of the gradients")
    grid[0].legend(fontsize=8)
    return {
        "cosines": Plot(
            figure,
            "Cosine of the gradients of the first class and of its auxiliary with respect to the "
            "shared parameters, in the first batches of each epoch: means over a group's pairs, "
            f"bands ± s.e. over {len(results.seeds)} seeds.",
        )
    }
