"""What a comparison of ways to train several tasks says: its tables and its reading."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.mtl.architectures import ARCHITECTURES
from taskdisc.mtl.backbones import BACKBONES
from taskdisc.mtl.schedules import SCHEDULES
from taskdisc.mtl.weightings import WEIGHTINGS
from taskdisc.paper import Paper
from taskdisc.studies.estimates import finite, interval, mean_and_sem, plus_minus, with_interval
from taskdisc.studies.multi_task_plots import plots_of
from taskdisc.studies.multi_task_rows import BLIND, BY_HAND, Rows
from taskdisc.studies.study import Answer, Record

if TYPE_CHECKING:
    from taskdisc.studies.multi_task import ComparisonSettings


def answer_of(settings: "ComparisonSettings", records: Sequence[Record]) -> Answer:
    """One line per row: metrics, Δm, and the paired difference to the reference row."""
    rows = Rows(settings, records)
    table = [_line(rows, name) for name in rows.names]
    places = 2 if settings.main is None else 4
    summary = [_short(rows, line["row"], line, places) for line in table]
    return Answer(
        table,
        _reading(rows, settings.main),
        plots_of(rows, settings),
        texts=_texts(rows),
        summary=[*summary, _short(rows, BLIND, {}, places)],
        more={"tasks": _by_task(rows)},
        papers=papers_of(settings),
        tables={"seeds": seeds_of(records), "epochs": epochs_of(records)},
    )


def seeds_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A line per training, task and metric: on the test images, at the chosen epoch."""
    return [
        {
            "row": record["row"],
            "seed": record["seed"],
            "task": task,
            "metric": metric,
            "value": value,
            "blind": record["blind"][task][metric],
            "epoch": record["epoch"],
        }
        for record in records
        for task, found in record["test"].items()
        for metric, value in found.items()
    ]


def epochs_of(records: Sequence[Record]) -> list[dict[str, Any]]:
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
            "metric": record["metrics"][task],
            "validation_metric": epoch["validation"][i][record["metrics"][task]],
            "validation_loss": epoch["validation"][i]["loss"],
            "conflicts": epoch["conflicts"],
        }
        for record in records
        for epoch in record["epochs"]
        for i, task in enumerate(record["test"])
    ]


def _columns(rows: Rows) -> dict[str, list[tuple[str, str]]]:
    """The columns of metrics: of which tasks each is the mean.

    Where all tasks have the same metric, their mean has one too.
    """
    found = {
        f"{task}: {metric}": [(task, metric)]
        for task, metrics in rows.shown.items()
        for metric in metrics
    }
    common = set.intersection(*(set(metrics) for metrics in rows.shown.values()))
    if len(rows.tasks) > 2:
        found |= {f"mean: {m}": [(task, m) for task in rows.tasks] for m in sorted(common)}
    return found


def _metrics(rows: Rows, name: str) -> dict[str, tuple[float, float]]:
    """Mean and standard error over seeds in each column of metrics."""
    found = {}
    for column, parts in _columns(rows).items():
        values = np.mean([rows.measured[name, *part] for part in parts], axis=0)
        mean, sem = mean_and_sem(values)
        found[column] = float(mean), float(sem)
    return found


def _line(rows: Rows, name: str) -> dict[str, Any]:
    records = rows.records[name]
    n_seeds = len({record["seed"] for record in records})
    line: dict[str, Any] = {"row": name, "n_seeds": n_seeds}
    for column, (mean, sem) in _metrics(rows, name).items():
        line |= {column: finite(mean), f"{column} s.e.": finite(sem)}
    if rows.gains:
        gain, gain_sem = mean_and_sem(rows.gains.get(name, np.array([np.nan])))
        line |= {"Δm [%]": finite(gain), "Δm s.e.": finite(gain_sem)}
    difference = rows.differences[name]
    low, high = interval(difference)
    line |= {
        f"gain on {rows.reference}": finite(mean_and_sem(difference)[0]),
        "from": finite(low),
        "to": finite(high),
    }
    if rows.over_random:
        over = rows.over_random.get(name, np.array([np.nan]))
        low, high = interval(over)
        line |= {
            "gain on random": finite(mean_and_sem(over)[0]),
            "from (random)": finite(low),
            "to (random)": finite(high),
        }
    return line | {
        "n_compared": int(np.isfinite(difference).sum()),
        "epoch": float(np.mean([record["epoch"] for record in records])),
        "parameters": sum(record["parameters"] for record in records) // n_seeds,
        "seconds": sum(record["seconds"] for record in records) / n_seeds,
        "step [ms]": 1000 * sum(record["step_seconds"] for record in records) / n_seeds,
    }


def _short(rows: Rows, name: str, line: Mapping[str, Any], places: int) -> dict[str, Any]:
    """A line of the table with means and errors in one column, to be read; of `BLIND` metrics."""
    short: dict[str, Any] = {"row": name}
    for column, (mean, sem) in _metrics(rows, name).items():
        short[column] = _with_error(mean, sem, 3)
    if rows.gains:
        gain = line.get("Δm [%]")
        short["Δm [%]"] = None if gain is None else _with_error(gain, line["Δm s.e."], 2)
    said = None
    if line and name != rows.reference:
        said = with_interval(rows.differences[name], places)
    short[f"gain on {rows.reference}: {rows.compared} [95 %]"] = said
    if rows.over_random:
        over = rows.over_random.get(name)
        short["gain on random [95 %]"] = None if over is None else with_interval(over, places)
    return {
        **short,
        "epoch": f"{line['epoch']:.0f}" if line else None,
        "parameters": line.get("parameters"),
        "seconds": f"{line['seconds']:.1f}" if line else None,
        "step [ms]": f"{line['step [ms]']:.1f}" if line else None,
    }


def _by_task(rows: Rows) -> list[dict[str, Any]]:
    """Each metric by itself: its difference to the reference row, and its place among the rows."""
    found = []
    for task, metrics in rows.shown.items():
        for metric in metrics:
            ranks = rows.ranks(task, metric)
            for name in rows.names:
                values = rows.measured[name, task, metric]
                if not np.isfinite(values).any():
                    continue
                mean, sem = mean_and_sem(values)
                difference = values - rows.measured[rows.reference, task, metric]
                rank = ranks.get(name)
                found.append(
                    {
                        "task": task,
                        "metric": metric,
                        "row": name,
                        "mean ± s.e.": _with_error(float(mean), float(sem), 4),
                        f"difference to {rows.reference} [95 %]": None
                        if name == rows.reference
                        else with_interval(difference, 4),
                        "place (from, to)": None
                        if rank is None
                        else f"{rank.mean():.1f} ({rank.min():.0f}, {rank.max():.0f})",
                    }
                )
    return found


def _with_error(mean: float, error: float | None, places: int) -> str | None:
    if not np.isfinite(mean):
        return None
    known = error is not None and np.isfinite(error)
    return f"{mean:.{places}f}" + (f" ± {error:.{places}f}" if known else "")


def _reading(rows: Rows, main: str | None) -> str:
    reference = rows.reference
    apart = (reference, *rows.singles, *rows.by_hand)
    others = [name for name in rows.names if name not in apart]
    n = len(rows.differences[reference])
    places = 2 if main is None else 4
    sentences = [f"Over {n} seed{'s' if n > 1 else ''}:"]
    if main is not None:
        mean = plus_minus(rows.values[reference][:, rows.tasks.index(main)])
        sentences.append(f"{rows.compared} of '{reference}' is {mean}.")
    differences = {name: rows.differences[name] for name in others}
    better, worse, same = _told_apart(differences, places)
    sentences += _paired(f"'{reference}'", rows.compared, better, worse)
    if rows.over_random:
        apart_from_random = _told_apart(rows.over_random, places)[:2]
        sentences += _paired("the same with random auxiliaries", rows.compared, *apart_from_random)
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
    chosen = rows.chosen_by_hand()
    left_out = {*rows.by_hand} - {chosen}  # many, of which the best by test would be luck
    whole = {
        name: mean
        for name, mean in means.items()
        if name not in left_out and np.isfinite(rows.values[name]).all()
    }
    if whole:
        best = max(whole, key=lambda name: whole[name])
        low, high = interval(rows.gains[best])
        inside = f" ({low:+.2f} to {high:+.2f})" if n > 1 else ""
        sentences.append(
            f"Against single-task training '{best}' has the highest Δm, {whole[best]:+.2f} "
            f"%{inside}."
        )
    if chosen is not None:
        weights = chosen.removeprefix(BY_HAND).strip()
        gain = plus_minus(rows.differences[chosen], places)
        beaten = rows.beaten_by_hand()
        n_others = len(rows.names) - len(rows.singles) - len(rows.by_hand)
        sentences.append(
            f"Of the {len(rows.by_hand)} weights by hand, {weights} have the best mean validation "
            f"score; their gain on '{reference}' is {gain} in {rows.compared}. Of the "
            f"{n_others} other rows, {len(beaten)} are behind some weights by hand in the "
            "means of both metrics."
        )
    sentences.append(
        "Intervals are 95 %, by Student's t over seeds; each row is looked at by itself."
        if n > 1
        else "A single seed has no spread: no row can be told from another by it."
    )
    return " ".join(sentences)


def _told_apart(
    differences: Mapping[str, np.ndarray], places: int
) -> tuple[list[str], list[str], list[str]]:
    """The rows whose 95 % interval is above 0, below it, and those without any difference."""
    better, worse, same = [], [], []
    for name, difference in differences.items():
        if not difference.any():
            same.append(f"'{name}'")
            continue
        low, high = interval(difference)
        mean = f"{float(mean_and_sem(difference)[0]):+.{places}f}"
        said = f"'{name}' ({mean}, {low:+.{places}f} to {high:+.{places}f})"
        if low > 0:
            better.append(said)
        elif high < 0:
            worse.append(said)
    return better, worse, same


def _paired(other: str, compared: str, better: list[str], worse: list[str]) -> list[str]:
    return [
        f"Paired with {other}, {word} in {compared}: {', '.join(said)}."
        for word, said in (("better", better), ("worse", worse))
        if said
    ]


def _texts(rows: Rows) -> dict[str, str]:
    return {
        f"{name}: {shown['title']}": shown["text"]
        for name, records in rows.records.items()
        for shown in records[0]["shown"]
        if shown["text"]
    }


def papers_of(settings: "ComparisonSettings") -> dict[str, Paper]:
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
