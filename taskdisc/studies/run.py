"""Running a study: its cells over the pool, each journalled, and the files of its answer."""

import json
import platform
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from taskdisc.archives import one_line
from taskdisc.cluster import pool_for
from taskdisc.config import Settings, settings_from
from taskdisc.discovery.loop import TrialLog
from taskdisc.errors import (
    RunFailedError,
    RunFolderError,
    SettingError,
    TaskdiscError,
    did_you_mean,
)
from taskdisc.files import csv_text, write_atomic, write_npz
from taskdisc.folder import (
    REPORT,
    check_images,
    made_by,
    make_folder,
    settings_of,
)
from taskdisc.journal import Journal, MemoryJournal, read_journal
from taskdisc.json_text import finite
from taskdisc.lock import Lock
from taskdisc.names import printable
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import STUDIES, command_of
from taskdisc.studies.images import source_of
from taskdisc.studies.study import Answer, Cell, Record, Study

CELLS = "cells.jsonl"
FILES = "cells"
TABLE = "table.csv"
READING = "reading.txt"
SUMMARY = "table.md"


class StudyFolder:
    """The open folder of a study; this process alone writes to it until it is closed or dies."""

    def __init__(self, path: Path, lock: Lock | None = None) -> None:
        self.path = path
        self.name, self.settings = study_of(path)
        self._lock = lock or Lock(path)
        try:
            self.cells = Journal(path / CELLS)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process write to the folder."""
        self._lock.close()


def study_named(name: str) -> Study:
    """A row of `STUDIES`.

    Raises:
        SettingError: there is none of that name.
    """
    if name not in STUDIES:
        raise SettingError(
            f"`study` must be a known study, got {name!r}; {did_you_mean(name, STUDIES)}"
        )
    return STUDIES[name]


def study(
    name: str,
    *,
    jobs: int = 0,
    device: str = "auto",
    cluster: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Answer:
    """Run a study in memory: its table, its reading and its plots.

    Args:
        name: A key of `STUDIES`, which `taskdisc study` lists.
        jobs: Workers; 0 stands for one per core or GPU. Does not change the result.
        device: `auto`, `cpu`, `cuda` or `cuda:<index>`.
        cluster: Address or file of a Dask scheduler, whose workers work instead; see `Cluster`.
        progress: Told what is going on.
        **settings: Of the study; its defaults are small and on digits.

    Raises:
        SettingError: an unknown study, or a setting breaks its rule.
        ImageSetError: the images are missing, unreadable or too few.
        RunFailedError: a worker died.
    """
    row = study_named(name)
    chosen = settings_from(row.settings, settings)
    row.check(chosen)
    records = measure_cells(name, chosen, pool_for(jobs, device, cluster), progress or Progress())
    return row.answer(chosen, records)


def new_study(
    name: str, settings: Settings, out: Path | None, pool: Pool, progress: Progress
) -> StudyFolder:
    """Make the folder of a study, after what can be checked beforehand.

    Args:
        name: A key of `STUDIES`.
        settings: Of the kind that the study needs.
        out: A new or empty folder; without it the first free `runs/study-<name>-<number>`.
        pool: Where it will run.
        progress: Told of the images that are read.

    Raises:
        SettingError: an unknown study, or settings that cannot be measured.
        ImageSetError: the images are missing or unreadable.
        RunFolderError: `out` holds something already, or cannot be made.
    """
    row = study_named(name)
    cells_of(row, settings)
    source = source_of(settings.images, progress) if hasattr(settings, "images") else None
    row.check(settings)
    folder_name = row.command or f"study-{name}"
    lock = make_folder(out, folder_name, command_of(name), settings, source, pool)
    return StudyFolder(lock.folder, lock)


def open_study(path: Path, progress: Progress) -> StudyFolder:
    """The folder of a study to go on with.

    Args:
        path: The folder.
        progress: Told of the images that are read.

    Raises:
        RunFolderError: no study, one that another process writes to, or a damaged one; other
            settings or images than it was started with.
        ImageSetError: the images are missing or unreadable.
    """
    folder = StudyFolder(path)
    try:
        if hasattr(folder.settings, "images"):
            check_images(path, source_of(folder.settings.images, progress))
    except BaseException:
        folder.close()
        raise
    return folder


def cells_of(row: Study, settings: Settings) -> list[Cell]:
    """The cells of a study, each once.

    Raises:
        SettingError: settings that cannot be measured, or that name a cell twice.
    """
    cells = row.cells(settings)
    keys = [_key(cell) for cell in cells]
    for cell in cells:
        if keys.count(_key(cell)) > 1:
            named = ", ".join(f"{name} = {value}" for name, value in cell.items())
            raise SettingError(
                f"the settings of a study must name every cell once, got two of {named}; each "
                "would count as a repeat."
            )
    return cells


def study_of(path: Path) -> tuple[str, Settings]:
    """The name and settings of the study that a folder holds.

    Raises:
        RunFolderError: the folder is missing or holds no study, or its settings are damaged or
            were changed.
    """
    maker = made_by(path)
    name = next((name for name in STUDIES if command_of(name) == maker), "")
    if not name:
        raise RunFolderError(
            f"the run folder must be one that a study has made, got '{path}', which is of "
            f"`taskdisc {maker}`."
        )
    return name, settings_of(path, STUDIES[name].settings, f"the study '{name}'")


def run_study(folder: StudyFolder, pool: Pool, progress: Progress) -> Answer:
    """Measure the cells that are not in the journal yet, and write the files of the answer.

    Raises:
        RunFolderError: the journal holds cells of other settings.
        RunFailedError: a worker died, or the folder cannot be written; what was measured is kept.
    """
    measure_cells(folder.name, folder.settings, pool, progress, folder.cells, folder.path)
    return write_study(folder.path)


class _Work(NamedTuple):
    name: str
    settings: Settings
    number: int
    cell: Cell
    folder: Path | None


def measure_cells(
    name: str,
    settings: Settings,
    pool: Pool,
    progress: Progress,
    log: TrialLog | None = None,
    folder: Path | None = None,
) -> list[Record]:
    """The records of all cells of a study, in their order; those in the log are not measured again.

    Raises:
        As `run_study`.
    """
    log = MemoryJournal() if log is None else log
    row = STUDIES[name]
    cells = cells_of(row, settings)
    known = _known(cells, log.lines)
    missing = [
        _Work(name, settings, number, cell, folder)
        for number, cell in enumerate(cells)
        if _key(cell) not in known
    ]
    measured = _alone(missing, pool, progress, len(cells)) if row.alone else _spread(missing, pool)
    if not row.alone:
        progress.start(name, len(cells), "cells")
        progress.advance(len(cells) - len(missing), known=True)
    for number, record, seconds in measured:
        log.append([{"cell": cells[number], "record": record, "seconds": round(seconds, 2)}])
        if not row.alone:
            progress.advance(1)
    if not row.alone:
        progress.finish()
    return records_of(cells, log.lines)


def records_of(cells: list[Cell], lines: Iterable[dict[str, Any]]) -> list[Record]:
    """What a journal holds of the cells, in their order; those that are missing are left out.

    Raises:
        RunFolderError: it holds others.
    """
    known = _known(cells, lines)
    # Through JSON and back, so that a straight run sees what a resumed one reads.
    return [
        json.loads(json.dumps({**cell, **known[_key(cell)]}))
        for cell in cells
        if _key(cell) in known
    ]


def _known(cells: list[Cell], lines: Iterable[dict[str, Any]]) -> dict[str, Record]:
    try:
        known = {_key(line["cell"]): dict(line["record"]) for line in lines}
        foreign = not set(known) <= {_key(cell) for cell in cells}
    except (KeyError, TypeError, ValueError):
        foreign = True
    if foreign:
        raise RunFolderError(
            f"{CELLS} must hold the cells of this study's settings, got others; it was damaged or "
            "is another study's: start a new run in another folder."
        )
    return known


def _key(cell: Cell) -> str:
    return json.dumps(cell, sort_keys=True)


def _alone(
    missing: list[_Work], pool: Pool, progress: Progress, n_cells: int
) -> Iterator[tuple[int, Record, float]]:
    for work in missing:
        named = ", ".join(f"{name} {value}" for name, value in work.cell.items())
        within = _Within(progress, f"{work.number + 1} of {n_cells} ({named})")
        yield _measured(work, pool, within)


def _spread(missing: list[_Work], pool: Pool) -> Iterator[tuple[int, Record, float]]:
    return pool.map(_in_worker, missing, ordered=False)


def _in_worker(work: _Work, device: str) -> tuple[int, Record, float]:
    if work.folder is not None and not work.folder.is_dir():
        raise RunFolderError(
            f"the run folder must be on a file system that all workers share, got '{work.folder}', "
            f"which is not there on {platform.node()}; start the workers where it is, or --out in "
            "a folder that they share."
        )
    return _measured(work, Pool(1, device), Progress())


def _measured(work: _Work, pool: Pool, progress: Progress) -> tuple[int, Record, float]:
    start = time.perf_counter()
    row = STUDIES[work.name]
    arguments = (work.settings, work.cell, pool, progress)
    if not row.keeps_files:
        record = row.measure(*arguments)
    elif work.folder is not None:
        record = row.measure(*arguments, work.folder / FILES / _folder_name(work))
    else:
        with tempfile.TemporaryDirectory() as folder:
            record = row.measure(*arguments, Path(folder))
    return work.number, record, time.perf_counter() - start


def _folder_name(work: _Work) -> str:
    """A folder for the files of a cell, that says which it is: `3-upgrad-0`."""
    words = "-".join(map(str, work.cell.values()))
    return f"{work.number}-{re.sub(r'[^A-Za-z0-9]+', '-', words).strip('-')[:60]}"


class _Within(Progress):
    """Tells another progress what goes on within a cell."""

    def __init__(self, outer: Progress, cell: str) -> None:
        self._outer, self._cell = outer, cell

    def start(self, stage: str, total: int, unit: str) -> None:
        self._outer.start(f"{self._cell}: {stage}", total, unit)

    def advance(self, n: int, best: float | None = None, *, known: bool = False) -> None:
        self._outer.advance(n, best, known=known)

    def finish(self) -> None:
        self._outer.finish()


@dataclass(frozen=True)
class FinishedStudy:
    """What the folder of a finished study says of it."""

    name: str
    settings: Settings
    answer: Answer
    n_cells: int
    seconds: float  # of work, summed over the workers


def finished_study(path: Path) -> FinishedStudy:
    """The answer of a study's folder, computed from its journal.

    Raises:
        RunFolderError: no study, a damaged one, or one whose cells are not all measured.
    """
    name, settings = study_of(path)
    row = STUDIES[name]
    cells = row.cells(settings)
    lines = read_journal(path / CELLS)
    records = records_of(cells, lines)
    if len(records) < len(cells):
        raise RunFolderError(
            f"the study in '{path}' must be finished, got {len(records)} of {len(cells)} cells; "
            f"go on with: taskdisc {command_of(name).split()[0]} --resume {path}"
        )
    with _reading_cells(path):
        seconds = sum(finite(line.get("seconds", 0)) for line in lines)
        return FinishedStudy(name, settings, row.answer(settings, records), len(cells), seconds)


@contextmanager
def _reading_cells(path: Path) -> Iterator[None]:
    """Whatever damaged records make of an answer becomes one sentence; `--debug` shows more."""
    try:
        yield
    except TaskdiscError:
        raise
    except (LookupError, TypeError, ArithmeticError, ValueError, AttributeError) as error:
        raise RunFolderError(
            f"'{path / CELLS}' must hold the records of its cells as they were measured, but they "
            f"make no answer ({type(error).__name__}: {one_line(error)}); it was damaged: start a "
            "new run in another folder."
        ) from error


def progress_of(path: Path) -> tuple[int, int, Settings]:
    """Cells that are measured, cells in all, and the settings of a study's folder.

    Raises:
        RunFolderError: as `study_of`, or a damaged journal.
    """
    name, settings = study_of(path)
    cells = STUDIES[name].cells(settings)
    return len(records_of(cells, read_journal(path / CELLS))), len(cells), settings


def write_study(path: Path) -> Answer:
    """Write tables, `reading.txt`, plots, arrays and page of a study whose cells are measured.

    Raises:
        RunFolderError: as `finished_study`.
        RunFailedError: the folder cannot be written.
    """
    from taskdisc.report.pictures import png
    from taskdisc.report.study_page import render_study

    done = finished_study(path)
    with _reading_cells(path):
        plots = done.answer.plots.items()
        pictures = {f"{name}.png": png(plot.figure, dpi=150) for name, plot in plots}
        page = render_study(path, done, pictures)
    try:
        for name, picture in pictures.items():
            write_atomic(path / name, picture)
        for name, arrays in done.answer.arrays.items():
            write_npz(path / f"{name}.npz", arrays)
        for name, lines in done.answer.tables.items():
            write_atomic(path / f"{name}.csv", csv_text(lines))
        write_atomic(path / READING, done.answer.reading + "\n")
        if done.answer.summary:
            write_atomic(path / SUMMARY, markdown(done.answer.summary))
        for name, lines in done.answer.more.items():
            write_atomic(path / f"{name}.md", markdown(lines))
        write_atomic(path / REPORT, page)
        # Last, because its presence is what makes a study finished.
        write_atomic(path / TABLE, csv_text(done.answer.table))
    except OSError as error:
        raise RunFailedError(
            f"the answer cannot be written to '{path}' ({error.strerror}); all cells are kept: "
            f"mend that, then taskdisc {command_of(done.name).split()[0]} --resume {path}"
        ) from error
    return done.answer


def markdown(table: list[dict[str, Any]]) -> str:
    """A table in Markdown, below its names; no name within ends a cell or opens an element."""
    from taskdisc.report.plots import cell_text

    def line(values: Iterable[Any]) -> str:
        cells = [
            printable(cell_text(value)).replace("|", "\\|").replace("<", "&lt;") for value in values
        ]
        return f"| {' | '.join(cells)} |\n"

    rule = "|" + "---|" * len(table[0]) + "\n"
    return line(table[0]) + rule + "".join(line(row.values()) for row in table)
