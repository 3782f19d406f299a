"""The page of a study: its reading, plots and table in one file that needs nothing else."""

import base64
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from taskdisc.errors import RunFolderError
from taskdisc.folder import CONFIG, ENVIRONMENT
from taskdisc.report.facts import flat
from taskdisc.report.plots import cell_text
from taskdisc.report.templates import source, templates
from taskdisc.studies import STUDIES
from taskdisc.taskness.confirm import LEVEL
from taskdisc.taskness.protocol import WINDOW

if TYPE_CHECKING:
    from taskdisc.studies.run import FinishedStudy

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
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        command = shlex.join(["taskdisc", *map(str, environment.pop("command")[1:])])
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise RunFolderError(
            f"'{folder / ENVIRONMENT}' must be as the study wrote it, but it is missing or was "
            "changed; restore it."
        ) from error
    answer = study.answer
    shown = {
        name: {
            "source": "data:image/png;base64," + base64.b64encode(picture).decode("ascii"),
            "caption": plot.caption,
        }
        for (name, picture), plot in zip(pictures.items(), answer.plots.values(), strict=True)
    }
    environment_of = templates()
    environment_of.filters["cell"] = cell_text
    return environment_of.get_template("study.html.j2").render(
        name=study.name,
        folder=folder.resolve().name,
        question=STUDIES[study.name].question,
        reading=answer.reading,
        plots=shown,
        table=answer.table[:MOST_ROWS],
        n_rows=len(answer.table),
        arrays={f"{name}.npz": list(arrays) for name, arrays in answer.arrays.items()},
        n_cells=study.n_cells,
        seconds=study.seconds,
        settings=flat(study.settings.model_dump(mode="json")),
        environment=flat({k: v for k, v in environment.items() if k not in ("schema", "made_by")}),
        command=command,
        again_command=f"taskdisc study {study.name} {shlex.quote(str(folder / CONFIG))}",
        window=WINDOW,
        level=LEVEL,
        style=source(environment_of, "page.css"),
    )
