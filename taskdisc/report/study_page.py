"""The page of a study: its reading, plots and table in one file that needs nothing else."""

import base64
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from taskdisc.errors import RunFolderError
from taskdisc.folder import CONFIG, ENVIRONMENT
from taskdisc.json_text import read_json
from taskdisc.report.facts import flat
from taskdisc.report.plots import cell_text
from taskdisc.report.templates import source, templates
from taskdisc.studies import STUDIES, command_of
from taskdisc.studies.multi_task import ComparisonSettings
from taskdisc.taskness.confirm import LEVEL
from taskdisc.taskness.protocol import WINDOW

if TYPE_CHECKING:
    from taskdisc.studies.run import FinishedStudy

OF_TASKNESS = {
    "taskness": "(b − g) / b, a mean over splits of the images into those that train a network and "
    "those that validate it. b: validation cross-entropy without seeing a pixel. g: the lowest "
    f"that the network reaches, after a rolling median of {WINDOW} steps. 0 is no better than "
    "blind, 1 is solved.",
    "T_task": f"The taskness that {100 - 100 * LEVEL:g} % of random labelings stay below, scored "
    "alike.",
}
"""Words of studies that score labelings, and what they mean."""

OF_REPEATS = {
    "s.e., s.d.": "Standard error of a mean over repeats, and standard deviation of the repeats. "
    "What the repeats are, the captions say.",
}

MOST_ROWS = 200
"""Rows of the table that the page shows; all are in table.csv."""


def render_study(folder: Path, study: "FinishedStudy", pictures: Mapping[str, bytes]) -> str:
    """The page as HTML. Whatever comes from the files of the run is escaped.

    Args:
        folder: Of the study.
        study: What it found.
        pictures: Its plots as PNG by file name, in the order of the answer's.

    Raises:
        RunFolderError: the folder does not say how the study was started.
    """
    try:
        environment = read_json(folder / ENVIRONMENT)
        command = shlex.join(["taskdisc", *map(str, environment.pop("command")[1:])])
        # All images of the source; which of them are drawn the settings say, and each cell may
        # draw others.
        if "n" in environment.get("images", {}):
            environment["images"]["read"] = environment["images"].pop("n")
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise RunFolderError(
            f"'{folder / ENVIRONMENT}' must be as the study wrote it, but it is missing or was "
            "changed; restore it."
        ) from error
    answer, row = study.answer, STUDIES[study.name]
    shown = {
        name: {
            "source": "data:image/png;base64," + base64.b64encode(picture).decode("ascii"),
            "caption": plot.caption,
            "tall": plot.tall,
        }
        for (name, picture), plot in zip(pictures.items(), answer.plots.values(), strict=True)
    }
    environment_of = templates()
    environment_of.filters["cell"] = cell_text
    return environment_of.get_template("study.html.j2").render(
        name=study.name,
        folder=folder.resolve().name,
        question=row.question,
        reading=answer.reading,
        note=environment.get("images", {}).get("note", ""),
        plots=shown,
        table=(answer.summary or answer.table)[:MOST_ROWS],
        n_rows=len(answer.summary or answer.table),
        more=answer.more,
        is_summary=bool(answer.summary),
        arrays={f"{name}.npz": list(arrays) for name, arrays in answer.arrays.items()},
        n_cells=study.n_cells,
        seconds=study.seconds,
        settings=flat(study.settings.model_dump(mode="json")),
        environment=flat({k: v for k, v in environment.items() if k not in ("schema", "made_by")}),
        command=command,
        tables=[f"{name}.csv" for name in answer.tables],
        made_by=command_of(study.name),
        again_command=f"taskdisc {command_of(study.name)} {shlex.quote(str(folder / CONFIG))}",
        trainings=_trainings(folder) if isinstance(study.settings, ComparisonSettings) else [],
        texts=answer.texts,
        texts_title=STUDIES[study.name].texts_title,
        papers=answer.papers,
        words={**(row.words or OF_TASKNESS), **({} if row.exact else OF_REPEATS)},
        style=source(environment_of, "page.css"),
    )


def _trainings(folder: Path) -> list[str]:
    """The folders of a comparison's trainings, by their numbers."""
    found = [path for path in (folder / "cells").glob("*-*") if path.is_dir()]
    return [str(path) for path in sorted(found, key=lambda p: int(p.name.partition("-")[0]))]
