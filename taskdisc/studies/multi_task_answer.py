"""What a comparison of ways to train several tasks says: its table, reading and plots."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.mtl.architectures import ARCHITECTURES
from taskdisc.mtl.backbones import BACKBONES
from taskdisc.mtl.kinds import METRICS
from taskdisc.mtl.schedules import SCHEDULES
from taskdisc.mtl.weightings import WEIGHTINGS
from taskdisc.paper import Paper
from taskdisc.studies.drawing import band, figure_of
from taskdisc.studies.estimates import interval, mean_and_sem, plus_minus
from taskdisc.studies.study import Answer, Plot, Record

if TYPE_CHECKING:
    from taskdisc.studies.multi_task import ComparisonSettings

SINGLE = "single-task"
"""Names the row in which each task is trained alone, with the backbone of the first row."""

MOST_DRAWN = 8
"""Curves in one plot, so that they can be told apart."""


def single_rows(settings: "ComparisonSettings") -> dict[str, str]:
    """For each row the name of the single-task row that it is held against.

    A single-task network has the backbone and the training of its row, so rows that differ in these
    have single-task rows of their own.
    """
    names: dict[str, str] = {}
    found = {}
    for name, row in settings.every_row.items():
        key = json.dumps([row.backbone.model_dump(), row.training.model_dump()], sort_keys=True)
        names.setdefault(key, f"{SINGLE} as '{name}'" if names else SINGLE)
        found[name] = names[key]
    return found


class Rows:
    """The records of a comparison, by row: metrics per seed and task, and gains.

    Attributes:
        names: Of the rows, in their order, those of single tasks last.
        singles: Of them, those of single tasks.
        tasks: Names of all tasks.
        metrics: The metric of each task, by its name.
        values: Test metrics [n_seeds, n_tasks] by row; NaN of tasks that a row does not have.
        gains: Δm [n_seeds] in % over the row's single-task networks, by row.
        differences: To the reference row, [n_seeds] by row, more being better: of the main task's
            metric, or Δm in % where there is no main task.
        compared: What the differences are of.
    """

    def __init__(self, settings: "ComparisonSettings", records: Sequence[Record]) -> None:
        self.tasks = list(settings.tasks)
        self.reference = settings.reference or next(iter(settings.every_row))
        self.records: dict[str, list[Record]] = {name: [] for name in settings.every_row}
        for record in records:
            self.records.setdefault(record["row"], []).append(record)
        self.names = list(self.records)
        self.singles = self.names[len(settings.every_row) :]
        self.metrics: dict[str, str] = {}
        for record in records:
            self.metrics |= record["metrics"]
        seeds = sorted({record["seed"] for record in records})
        self.values = {}
        for name, of_row in self.records.items():
            values = np.full((len(seeds), len(self.tasks)), np.nan)
            for record in of_row:
                for task, value in record["test"].items():
                    place = seeds.index(record["seed"]), self.tasks.index(task)
                    values[place] = np.nan if value is None else value
            self.values[name] = values
        single_of = single_rows(settings) if self.singles else {}
        self.gains = {name: self.delta_m(name, single) for name, single in single_of.items()}
        if settings.main is None:
            self.compared = "Δm [%]"
            self.differences = {name: self.delta_m(name, self.reference) for name in self.names}
        else:
            metric = self.metrics[settings.main]
            self.compared = f"{metric} of {settings.main}"
            sign = 1 if METRICS[metric].higher_is_better else -1
            column = self.tasks.index(settings.main)
            before = self.values[self.reference][:, column]
            self.differences = {
                name: sign * (values[:, column] - before) for name, values in self.values.items()
            }

    def delta_m(self, name: str, reference: str) -> np.ndarray:
        """Δm of a row over another, [n_seeds] in %: the mean relative gain over tasks both have.

        Maninis et al. 2019, "Attentive Single-Tasking of Multiple Tasks", eq. 4; of metrics of
        which less is better it is the relative loss. Gains are relative to the reference's mean
        over seeds, so that their mean is that of the mean metrics and no seed near 0 decides it.
        r² is taken as the share 1 − r² that is not explained.
        """
        relative = []
        for task, new, old in zip(
            self.tasks, self.values[name].T, self.values[reference].T, strict=True
        ):
            metric = self.metrics.get(task, "")
            if metric == "r2":
                new, old = 1 - new, 1 - old
            sign = 1 if metric and METRICS[metric].higher_is_better and metric != "r2" else -1
            both = np.isfinite(new) & np.isfinite(old)
            before = np.abs(old[both].mean()) if both.any() else 0.0
            gain = np.full(len(new), np.nan)
            if before > 0:
                gain[both] = 100 * sign * (new - old)[both] / before
            relative.append(gain)
        return mean_and_sem(np.array(relative))[0]


def answer_of(settings: "ComparisonSettings", records: Sequence[Record]) -> Answer:
    """One line per row: metrics, Δm, and the paired difference to the reference row."""
    rows = Rows(settings, records)
    table = [_line(rows, name) for name in rows.names]
    plots = {"rows": _draw_rows(rows)}
    plots |= _draw_plane(rows)
    plots["epochs"] = _draw_epochs(rows)
    plots |= _draw_schedules(rows)
    plots |= _draw_weights(rows)
    plots |= _draw_conflicts(rows)
    plots |= _draw_matrices(rows)
    return Answer(
        table,
        _reading(rows, settings.main),
        plots,
        texts=_texts(rows),
        summary=[_short(rows, line, 2 if settings.main is None else 4) for line in table],
        papers=_papers(settings),
        tables={"seeds": _seeds(records), "epochs": _epochs(records)},
    )


def _seeds(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A line per training and task: its test metric at the chosen epoch."""
    return [
        {
            "row": record["row"],
            "seed": record["seed"],
            "task": task,
            "metric": record["metrics"][task],
            "value": value,
            "epoch": record["epoch"],
        }
        for record in records
        for task, value in record["test"].items()
    ]


def _epochs(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A line per training, epoch and task."""
    return [
        {
            "row": record["row"],
            "seed": record["seed"],
            "epoch": epoch["epoch"],
            "task": task,
            "active": int(i in epoch["active"]),
            "train_loss": epoch["losses"][i],
            "weight": epoch["weights"][i],
            "validation_loss": epoch["validation_losses"][i],
            "validation_metric": epoch["validation_metrics"][i],
            "conflicts": epoch["conflicts"],
        }
        for record in records
        for epoch in record["epochs"]
        for i, task in enumerate(record["test"])
    ]


def _line(rows: Rows, name: str) -> dict[str, Any]:
    records = rows.records[name]
    n_seeds = len({record["seed"] for record in records})
    line: dict[str, Any] = {"row": name, "n_seeds": n_seeds}
    mean, sem = mean_and_sem(rows.values[name])
    for i, task in enumerate(rows.tasks):
        label = f"{task}: {rows.metrics.get(task, 'not trained')}"
        line[label], line[f"{task}: s.e."] = _value(mean[i]), _value(sem[i])
    if rows.gains:
        gain, gain_sem = mean_and_sem(rows.gains.get(name, np.array([np.nan])))
        line |= {"Δm [%]": _value(gain), "Δm s.e.": _value(gain_sem)}
    difference = rows.differences[name]
    low, high = interval(difference)
    return line | {
        f"gain on {rows.reference}": _value(mean_and_sem(difference)[0]),
        "from": _value(low),
        "to": _value(high),
        "n_compared": int(np.isfinite(difference).sum()),
        "epoch": float(np.mean([record["epoch"] for record in records])),
        "parameters": sum(record["parameters"] for record in records) // n_seeds,
        "seconds": float(sum(record["seconds"] for record in records) / n_seeds),
    }


def _short(rows: Rows, line: Mapping[str, Any], places: int) -> dict[str, Any]:
    """A line of the table with means and errors in one column, to be read."""
    short = {"row": line["row"]}
    for task in rows.tasks:
        label = f"{task}: {rows.metrics.get(task, 'not trained')}"
        short[label] = _with_error(line[label], line[f"{task}: s.e."], 3)
    if rows.gains:
        short["Δm [%]"] = _with_error(line["Δm [%]"], line["Δm s.e."], 2)
    gain, said = line[f"gain on {rows.reference}"], None
    if line["row"] != rows.reference and gain is not None:
        ends = [] if line["from"] is None else [line["from"], line["to"]]
        inside = " to ".join(f"{end:+.{places}f}" for end in ends)
        said = f"{gain:+.{places}f}" + (f" ({inside})" if inside else "")
    return {
        **short,
        f"gain on {rows.reference}: {rows.compared} [95 %]": said,
        "epoch": f"{line['epoch']:.0f}",
        "parameters": line["parameters"],
        "seconds": f"{line['seconds']:.1f}",
    }


def _with_error(mean: float | None, error: float | None, places: int) -> str | None:
    if mean is None:
        return None
    return f"{mean:.{places}f}" + ("" if error is None else f" ± {error:.{places}f}")


def _value(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _reading(rows: Rows, main: str | None) -> str:
    reference = rows.reference
    others = [name for name in rows.names if name != reference and name not in rows.singles]
    n = len(rows.differences[reference])
    sentences = [f"Over {n} seed{'s' if n > 1 else ''}:"]
    if main is not None:
        mean = plus_minus(rows.values[reference][:, rows.tasks.index(main)])
        sentences.append(f"{rows.compared} of '{reference}' is {mean}.")
    better, worse, same = [], [], []
    for name in others:
        difference = rows.differences[name]
        if not difference.any():
            same.append(f"'{name}'")
            continue
        low, high = interval(difference)
        places = 2 if main is None else 4
        mean = f"{float(mean_and_sem(difference)[0]):+.{places}f}"
        said = f"'{name}' ({mean}, {low:+.{places}f} to {high:+.{places}f})"
        if low > 0:
            better.append(said)
        elif high < 0:
            worse.append(said)
    for word, said_of in (("better", better), ("worse", worse)):
        if said_of:
            sentences.append(
                f"Paired with '{reference}', {word} in {rows.compared}: {', '.join(said_of)}."
            )
    if same:
        sentences.append(f"The same in every seed as '{reference}': {', '.join(same)}.")
    n_open = len(others) - len(better) - len(worse) - len(same)
    if n_open and n > 1:
        sentences.append(
            f"For {n_open} of the {len(others)} rows beside '{reference}' these seeds leave open "
            "whether they are better or worse."
        )
    means = {name: float(mean_and_sem(gain)[0]) for name, gain in rows.gains.items()}
    # A row with some of the tasks is no match for those with all of them.
    whole = {n: m for n, m in means.items() if np.isfinite(rows.values[n]).all()}
    if whole:
        best = max(whole, key=lambda name: whole[name])
        low, high = interval(rows.gains[best])
        inside = f" ({low:+.2f} to {high:+.2f})" if n > 1 else ""
        sentences.append(
            f"Against single-task training '{best}' has the highest Δm, {whole[best]:+.2f} "
            f"%{inside}."
        )
    sentences.append(
        "Intervals are 95 %, by Student's t over seeds; each row is looked at by itself."
        if n > 1
        else "A single seed has no spread: no row can be told from another by it."
    )
    return " ".join(sentences)


def _draw_rows(rows: Rows) -> Plot:
    names = rows.names[::-1]
    reference = rows.reference
    height = 1.2 + 0.3 * len(names)
    figure, grid = figure_of(1 + len(rows.tasks), width=3.2, height=height, columns=4)
    panels = [(f"gain on {reference}: {rows.compared}", rows.differences)]
    panels += [
        (f"{task}: {rows.metrics.get(task, '')}", {n: rows.values[n][:, i] for n in names})
        for i, task in enumerate(rows.tasks)
    ]
    for panel, (axes, (title, values)) in enumerate(zip(grid, panels, strict=True)):
        for place, name in enumerate(names):
            given = values[name][np.isfinite(values[name])]
            axes.plot(given, [place] * len(given), "o", color="grey", markersize=3, alpha=0.6)
            if len(given) > 1:
                mean, (low, high) = given.mean(), interval(given)
                axes.errorbar(
                    mean, place, xerr=[[mean - low], [high - mean]], fmt="D", color="#0b3c6f",
                    capsize=3, markersize=4,
                )  # fmt: skip
        axes.set_title(title, fontsize=9)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="x", labelsize=8)
        if panel == 0:
            axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(names)), names if panel % 4 == 0 else [""] * len(names))
    return Plot(
        figure,
        "Dots: seeds. Diamonds and bars: mean and 95 % interval over seeds, by Student's t. Left: "
        f"paired differences to '{reference}'.",
    )


def _draw_plane(rows: Rows) -> dict[str, Plot]:
    """Of two tasks, the metric of the one against that of the other."""
    if len(rows.tasks) != 2:
        return {}
    figure, (axes,) = figure_of(1, width=7.0, height=5.0)
    for name in rows.names:
        (x, y), (x_error, y_error) = mean_and_sem(rows.values[name])
        errors = {"xerr": x_error, "yerr": y_error} if np.isfinite(x_error + y_error) else {}
        axes.errorbar(x, y, linestyle="", **errors)
        axes.annotate(name, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    labels = [f"{task}: {rows.metrics.get(task, '')}" for task in rows.tasks]
    axes.set(xlabel=labels[0], ylabel=labels[1])
    return {"plane": Plot(figure, "One mark per row: means over seeds, bars ± s.e.")}


def _draw_epochs(rows: Rows) -> Plot:
    names = [name for name in rows.names if name not in rows.singles][:MOST_DRAWN]
    figure, grid = figure_of(len(rows.tasks), width=4.0, height=3.2, columns=3)
    for axes, task in zip(grid, rows.tasks, strict=True):
        for name in names:
            curves = _curves(rows.records[name], task, "validation_metrics")
            if len(curves):
                band(axes, np.arange(1, curves.shape[1] + 1), curves, name, markersize=2)
        axes.set(title=task, xlabel="epoch", ylabel=f"validation {rows.metrics.get(task, '')}")
    grid[0].legend(fontsize=7)
    left = len(rows.names) - len(names) - len(rows.singles)
    more = f" The first {len(names)} rows of {len(names) + left}." if left else ""
    return Plot(figure, f"Bands: ± s.e. over seeds.{more}")


def _curves(records: Sequence[Record], task: str, column: str) -> np.ndarray:
    """A column of the epochs' records for one task, [n_seeds, n_epochs]."""
    curves = []
    for record in records:
        names = list(record["test"])
        if task in names:
            place = names.index(task)
            curves.append([epoch[column][place] for epoch in record["epochs"]])
    return np.array(curves, dtype=float)


def _draw_schedules(rows: Rows) -> dict[str, Plot]:
    """How often each task was active in each epoch, for rows that drop tasks."""
    shares = {}
    for name, records in rows.records.items():
        names = list(records[0]["test"])
        active = np.array(
            [[[t in e["active"] for t in range(len(names))] for e in r["epochs"]] for r in records]
        )
        if name not in rows.singles and not active.all():
            shares[name] = names, active.mean(axis=0).T
    if not shares:
        return {}
    figure, grid = figure_of(len(shares), width=4.5, height=2.2, columns=3)
    for axes, (name, (names, share)) in zip(grid, shares.items(), strict=True):
        extent = (0.5, share.shape[1] + 0.5, len(names) - 0.5, -0.5)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto", extent=extent)
        axes.grid(False)
        axes.set_yticks(range(len(names)), names)
        axes.set(title=name, xlabel="epoch")
    caption = "Share of the seeds in which a task was trained in an epoch; dark: in all of them."
    return {"schedules": Plot(figure, caption)}


def _draw_weights(rows: Rows) -> dict[str, Plot]:
    """Task weights over epochs, for rows whose weights move."""
    moving = []
    for name in rows.names:
        if name in rows.singles:
            continue
        curves = [_curves(rows.records[name], task, "weights") for task in rows.tasks]
        known = [c for c in curves if c.size and np.isfinite(c).any()]
        if known and any(np.nanmax(c) - np.nanmin(c) > 1e-9 for c in known):
            moving.append((name, curves))
    if not moving:
        return {}
    figure, grid = figure_of(len(moving), width=3.2, height=2.6, columns=4)
    for axes, (name, curves) in zip(grid, moving, strict=True):
        for task, values in zip(rows.tasks[:MOST_DRAWN], curves, strict=False):
            if values.size:
                band(axes, np.arange(1, values.shape[1] + 1), values, task, markersize=2)
        axes.set(title=name, xlabel="epoch")
    grid[0].set_ylabel("weight of the task")
    grid[0].legend(fontsize=7)
    return {
        "weights": Plot(figure, "Mean weight of each task over an epoch; bands: ± s.e. over seeds.")
    }


def _draw_conflicts(rows: Rows) -> dict[str, Plot]:
    """The share of conflicting pairs over epochs, and the mean cosines of the reference's tasks."""
    curves = {
        name: np.array([[e["conflicts"] for e in r["epochs"]] for r in records], dtype=float)
        for name, records in rows.records.items()
        if name not in rows.singles
    }
    known = {name: c for name, c in curves.items() if np.isfinite(c).any()}
    if not known or len(rows.tasks) < 2:
        return {}
    first = rows.reference if rows.reference in known else next(iter(known))
    figure, (left, right) = figure_of(2, width=5.0, height=3.6)
    for name, values in list(known.items())[:MOST_DRAWN]:
        band(left, np.arange(1, values.shape[1] + 1), values, name, markersize=2)
    left.set(xlabel="epoch", ylabel="share of pairs whose gradients conflict", ylim=(-0.02, 1.02))
    left.legend(fontsize=7)
    stacked = np.array(
        [e["cosines"] for r in rows.records[first] for e in r["epochs"]], dtype=float
    )
    mean = mean_and_sem(stacked)[0]
    names = list(rows.records[first][0]["test"])
    _matrix(right, mean, names, f"cosines of the gradients, {first}", 1.0)
    return {
        "conflicts": Plot(
            figure,
            "Of the first batches of each epoch. Left: bands ± s.e. over seeds. Right: the mean "
            "over epochs and seeds.",
        )
    }


def _draw_matrices(rows: Rows) -> dict[str, Plot]:
    """What networks show of their tasks as matrices, of the first seed."""
    found = [
        (name, shown, list(records[0]["test"]))
        for name, records in rows.records.items()
        for shown in records[0]["shown"]
        if shown["matrix"]
    ]
    if not found:
        return {}
    figure, grid = figure_of(len(found), width=3.4, height=3.0, columns=4)
    for axes, (name, shown, tasks) in zip(grid, found, strict=True):
        matrix = np.array(shown["matrix"], dtype=float)
        _matrix(axes, matrix, tasks, f"{name}: {shown['title']}", float(np.abs(matrix).max()) or 1)
    return {"learned": Plot(figure, "What the networks learned about the tasks; the first seed.")}


def _matrix(axes: Any, matrix: np.ndarray, names: Sequence[str], title: str, most: float) -> None:
    axes.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most)
    axes.grid(False)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(places, names, fontsize=7)
    axes.set_title(title, fontsize=8)
    if len(names) <= 10:
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                if np.isfinite(value):
                    dark = abs(value) > 0.6 * most
                    axes.text(
                        j, i, f"{value:.2f}", ha="center", va="center", fontsize=7,
                        color="white" if dark else "black",
                    )  # fmt: skip


def _texts(rows: Rows) -> dict[str, str]:
    return {
        f"{name}: {shown['title']}": shown["text"]
        for name, records in rows.records.items()
        for shown in records[0]["shown"]
        if shown["text"]
    }


def _papers(settings: "ComparisonSettings") -> dict[str, Paper]:
    tables: dict[str, Mapping[str, Any]] = {
        "architecture": ARCHITECTURES,
        "backbone": BACKBONES,
        "weighting": WEIGHTINGS,
        "schedule": SCHEDULES,
    }
    found = {}
    for row in settings.every_row.values():
        for kind, table in tables.items():
            name = getattr(row, kind).name
            if name in table and table[name].paper is not None:
                found[name] = table[name].paper
    return found
