"""Learnability studies: one file each, one table, one way to run and keep them."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskdisc.config import Settings, dump_settings
from taskdisc.discovery.folder import numbered
from taskdisc.errors import SettingError, did_you_mean
from taskdisc.files import write_atomic
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import (
    agreement,
    class_recovery,
    closed_form,
    noise,
    scale,
    score_reliability,
    search_comparison,
)
from taskdisc.studies.study import FinishedStudy, Study

STUDIES: dict[str, Study] = {
    "agreement": Study(
        "do networks agree on images that nobody searched, and more than on random labelings?",
        agreement.AgreementStudySettings,
        agreement.run,
    ),
    "score-reliability": Study(
        "how much of a score is noise, and how many trainings make it reliable?",
        score_reliability.ReliabilitySettings,
        score_reliability.run,
    ),
    "closed-form": Study(
        "which kernel and ridge agree best with trained taskness?",
        closed_form.ClosedFormStudySettings,
        closed_form.run,
    ),
    "class-recovery": Study(
        "how many classes does a search find again, without ever seeing one?",
        class_recovery.RecoverySettings,
        class_recovery.run,
    ),
    "noise": Study(
        "how often does a search find a task where there is nothing to find?",
        noise.NoiseSettings,
        noise.run,
    ),
    "scale": Study(
        "what does a search cost with more images?",
        scale.ScaleSettings,
        scale.run,
    ),
    "search-comparison": Study(
        "which search finds the most learnable labeling, and how soon?",
        search_comparison.ComparisonSettings,
        search_comparison.run,
    ),
}


def run_study(
    name: str,
    settings_of: Callable[[type[Settings]], Settings],
    *,
    out: Path | None,
    pool: Pool,
    progress: Progress,
) -> FinishedStudy:
    """Run a study and write `study.yaml`, `table.csv`, `reading.txt` and its plots as `.png`.

    Args:
        name: A key of `STUDIES`.
        settings_of: Reads settings of the kind that the study needs.
        out: A new or empty folder; without it the first free `runs/study-<name>-<number>`.
        pool: Where to train.
        progress: Told what is going on.

    Raises:
        SettingError: an unknown study, or `out` holds something.
    """
    if name not in STUDIES:
        raise SettingError(
            f"`study` must be a known study, got {name!r}; {did_you_mean(name, STUDIES)}"
        )
    row = STUDIES[name]
    settings = settings_of(row.settings)
    if out is not None and out.exists() and any(out.iterdir()):
        raise SettingError(f"`out` must be a new or empty folder, got '{out}', which holds files.")
    # Made before the work, so that a folder which cannot be written costs no results.
    folder = numbered(f"study-{name}") if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "study.yaml", dump_settings(settings))
    answer = row.run(settings, pool, progress)
    write_atomic(folder / "table.csv", _csv(answer.table))
    write_atomic(folder / "reading.txt", answer.reading + "\n")
    for figure_name, figure in answer.figures.items():
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150)
        write_atomic(folder / f"{figure_name}.png", picture.getvalue())
    return FinishedStudy(answer.table, answer.reading, folder)


def _csv(table: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
