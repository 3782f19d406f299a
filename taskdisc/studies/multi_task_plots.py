"""What a comparison of ways to train several tasks draws."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from taskdisc.mtl.kinds import higher_is_better
from taskdisc.studies.drawing import band, draw_matrix, figure_of
from taskdisc.studies.estimates import interval, mean_and_sem
from taskdisc.studies.multi_task_rows import BY_HAND, Rows, variant_of
from taskdisc.studies.study import Plot, Record

if TYPE_CHECKING:
    from taskdisc.studies.multi_task import ComparisonSettings

MANY = 12
"""Rows or panels above which a plot takes the height that it needs on the page."""

MOST_DRAWN = 8
"""Curves in one plot, so that they can be told apart."""


def plots_of(rows: Rows, settings: "ComparisonSettings") -> dict[str, Plot]:
    """All plots that these rows give something to draw for, by name."""
    return {
        "rows": _draw_rows(rows),
        **_draw_variants(rows, settings),
        **_draw_plane(rows),
        **_draw_hand(rows, settings),
        "epochs": _draw_epochs(rows),
        **_draw_schedules(rows),
        **_draw_weights(rows),
        **_draw_conflicts(rows),
        **_draw_matrices(rows),
    }


def _draw_rows(rows: Rows) -> Plot:
    left_out = {*rows.by_hand} - {rows.chosen_by_hand()}
    names = [name for name in rows.names if name not in left_out][::-1]
    reference = rows.reference
    height = 1.2 + 0.3 * len(names)
    nothing: np.ndarray = np.empty(0)
    panels = [(f"gain on {reference}: {rows.compared}", rows.differences)]
    if rows.over_random:
        over = {name: rows.over_random.get(name, nothing) for name in names}
        panels.append((f"gain on random: {rows.compared}", over))
    n_differences = len(panels)
    panels += [
        (f"{task}: {rows.metrics[task]}", {n: rows.values[n][:, i] for n in names})
        for i, task in enumerate(rows.tasks)
    ]
    figure, grid = figure_of(len(panels), width=3.2, height=height, columns=4)
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
        if panel < n_differences:
            axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(names)), names if panel % 4 == 0 else [""] * len(names))
    more = " Of the weights by hand those with the best validation score." if left_out else ""
    return Plot(
        figure,
        "Dots: seeds. Diamonds and bars: mean and 95 % interval over seeds, by Student's t. Left: "
        f"paired differences to '{reference}'.{more}",
        tall=len(names) > MANY,
    )


def _draw_variants(rows: Rows, settings: "ComparisonSettings") -> dict[str, Plot]:
    """Of rows in several variants, the gain and the metrics as matrices."""
    if not settings.across:
        return {}
    panels = {f"gain on {rows.reference}: {rows.compared}": rows.differences}
    panels |= {
        f"{task}: {rows.metrics[task]}": {name: rows.values[name][:, i] for name in rows.names}
        for i, task in enumerate(rows.tasks)
    }
    height = 1.6 + 0.35 * len(settings.rows)
    width = 2.4 + 0.55 * len(settings.across)
    figure, grid = figure_of(len(panels), width=width, height=height, columns=2)
    for axes, (title, values) in zip(grid, panels.items(), strict=True):
        means = np.array(
            [
                [mean_and_sem(values[variant_of(row, variant)])[0] for variant in settings.across]
                for row in settings.rows
            ]
        )
        axes.imshow(means, cmap="Blues", aspect="auto")
        axes.grid(False)
        axes.set_xticks(range(len(settings.across)), [*settings.across], rotation=45, ha="right")
        axes.set_yticks(range(len(settings.rows)), [*settings.rows])
        axes.tick_params(labelsize=7)
        axes.set_title(title, fontsize=8)
        middle = (np.nanmax(means) + np.nanmin(means)) / 2
        for (i, j), mean in np.ndenumerate(means):
            places = 2 if abs(np.nanmax(means)) >= 1 or np.nanmin(means) <= -1 else 3
            axes.text(
                j, i, f"{mean:.{places}f}", ha="center", va="center", fontsize=6,
                color="white" if mean > middle else "black",
            )  # fmt: skip
    return {"variants": Plot(figure, "Means over seeds of each row in each variant.")}


def _draw_plane(rows: Rows) -> dict[str, Plot]:
    """Of two tasks, the metric of the one against that of the other."""
    if len(rows.tasks) != 2:
        return {}
    figure, (axes,) = figure_of(1, width=8.5, height=5.5)
    if rows.by_hand:
        means = np.array([mean_and_sem(rows.values[name])[0] for name in rows.by_hand])
        errors = np.array([mean_and_sem(rows.values[name])[1] for name in rows.by_hand])
        known = np.nan_to_num(errors)
        axes.errorbar(
            means[:, 0], means[:, 1], xerr=known[:, 0], yerr=known[:, 1], linestyle="-",
            marker=".", color="grey", elinewidth=0.5,
            label=f"by hand, {rows.tasks[0]} to {rows.tasks[1]}",
        )  # fmt: skip
        for end in (0, -1):
            said = rows.by_hand[end].removeprefix(BY_HAND).strip()
            axes.annotate(said, means[end], fontsize=7, color="grey")
    others = [name for name in rows.names if name not in rows.by_hand]
    numbered = len(others) > MOST_DRAWN
    for number, name in enumerate(others, start=1):
        (x, y), (x_error, y_error) = mean_and_sem(rows.values[name])
        if not np.isfinite(x + y):
            continue
        errors_of = {"xerr": x_error, "yerr": y_error} if np.isfinite(x_error + y_error) else {}
        label = f"{number} {name}" if numbered else name
        axes.errorbar(x, y, linestyle="", label=label, elinewidth=0.7, **errors_of)
        if numbered:
            axes.annotate(
                str(number), (x, y), xytext=(3, 2), textcoords="offset points", fontsize=6
            )
    labels = [f"{task}: {rows.metrics[task]}" for task in rows.tasks]
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.set_xlim(*_better_last(rows, 0))
    axes.set_ylim(*_better_last(rows, 1))
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1), ncols=1 + len(others) // 30)
    return {
        "plane": Plot(
            figure,
            "One mark per row: means over seeds, bars ± s.e. Better is up and right. Rows that are "
            "far worse than all others are outside.",
        )
    }


def _most_of(rows: Rows, task: int) -> tuple[float, float]:
    """The range in which most rows lie: far ones would press the others together."""
    means = np.array([mean_and_sem(rows.values[name])[0][task] for name in rows.names])
    means = means[np.isfinite(means)]
    low, middle, high = np.quantile(means, (0.1, 0.5, 0.9))
    reach = 2 * max(high - low, 1e-3)
    inside = means[np.abs(means - middle) <= reach]
    margin = 0.06 * max(float(np.ptp(inside)), 1e-3)
    return float(inside.min() - margin), float(inside.max() + margin)


def _better_last(rows: Rows, task: int) -> tuple[float, float]:
    """The range in which most rows lie, from its worse to its better end."""
    low, high = _most_of(rows, task)
    return (low, high) if higher_is_better(rows.metrics[rows.tasks[task]]) else (high, low)


def _draw_hand(rows: Rows, settings: "ComparisonSettings") -> dict[str, Plot]:
    """The metrics of two tasks against the weight of the first, by hand."""
    if not rows.by_hand:
        return {}
    weights = [settings.by_hand[name][0] for name in rows.by_hand]
    figure, grid = figure_of(2, width=4.5, height=3.4)
    for i, (axes, task) in enumerate(zip(grid, rows.tasks, strict=True)):
        values = np.array([rows.values[name][:, i] for name in rows.by_hand]).T
        band(axes, weights, values, "weights by hand", markersize=2)
        axes.axhline(
            float(mean_and_sem(rows.values[rows.reference][:, i])[0]),
            color="grey", linestyle="--", label=rows.reference,
        )  # fmt: skip
        low, high = _most_of(rows, i)
        axes.set(xlabel=f"weight of {rows.tasks[0]}", ylabel=f"{task}: {rows.metrics[task]}")
        axes.set_ylim(low, high)
    grid[0].legend(fontsize=7)
    return {"hand": Plot(figure, "The other task has the rest, to 1. Bands: ± s.e. over seeds.")}


def _draw_epochs(rows: Rows) -> Plot:
    every = [name for name in rows.names if name not in (*rows.singles, *rows.by_hand)]
    names = every[:MOST_DRAWN]
    figure, grid = figure_of(len(rows.tasks), width=4.0, height=3.2, columns=3)
    for axes, task in zip(grid, rows.tasks, strict=True):
        for name in names:
            curves = _validation_curves(rows.records[name], task)
            if len(curves):
                band(axes, np.arange(1, curves.shape[1] + 1), curves, name, markersize=2)
        axes.set(title=task, xlabel="epoch", ylabel=f"validation {rows.metrics[task]}")
    grid[0].legend(fontsize=7)
    left = len(every) - len(names)
    more = f" The first {len(names)} rows of {len(every)}." if left else ""
    tall = len(rows.tasks) > MANY / 2
    return Plot(figure, f"Bands: ± s.e. over seeds.{more}", tall=tall)


def _curves(records: Sequence[Record], task: str, column: str) -> np.ndarray:
    """A column of the epochs' records for one task, [n_seeds, n_epochs]."""
    curves = []
    for record in records:
        names = list(record["test"])
        if task in names:
            place = names.index(task)
            curves.append([epoch[column][place] for epoch in record["epochs"]])
    return np.array(curves, dtype=float)


def _validation_curves(records: Sequence[Record], task: str) -> np.ndarray:
    """The metric of one task on the validation images, [n_seeds, n_epochs]."""
    curves = []
    for record in records:
        names = list(record["test"])
        if task in names:
            place, metric = names.index(task), record["metrics"][task]
            curves.append([epoch["validation"][place][metric] for epoch in record["epochs"]])
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
        if name in (*rows.singles, *rows.by_hand):
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
    caption = "Mean weight of each task over an epoch; bands: ± s.e. over seeds."
    return {"weights": Plot(figure, caption, tall=len(moving) > MANY)}


def _draw_conflicts(rows: Rows) -> dict[str, Plot]:
    """The share of conflicting pairs over epochs, and the mean cosines of the reference's tasks."""
    curves = {
        name: np.array([[e["conflicts"] for e in r["epochs"]] for r in records], dtype=float)
        for name, records in rows.records.items()
        if name not in (*rows.singles, *rows.by_hand)
    }
    known = {name: c for name, c in curves.items() if np.isfinite(c).any()}
    if not known:
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
    draw_matrix(right, mean, names, f"cosines of the gradients, {first}", 1.0)
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
        draw_matrix(
            axes, matrix, tasks, f"{name}: {shown['title']}", float(np.abs(matrix).max()) or 1
        )
    return {"learned": Plot(figure, "What the networks learned about the tasks; the first seed.")}
