"""The page of a study, on one that takes no time, and in a real browser."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import visited

from taskdisc.config import Settings
from taskdisc.errors import RunFolderError
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.report.plots import cell_text
from taskdisc.studies import STUDIES
from taskdisc.studies.drawing import band, plot
from taskdisc.studies.run import StudyFolder, new_study, run_study, write_study
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study


class QuickSettings(Settings):
    """Of a study that measures nothing."""

    n_rows: int = 3
    note: str = "none"
    seed: int = 0


def _cells(settings: QuickSettings) -> list[Cell]:
    return [{"row": number} for number in range(settings.n_rows)]


def _measure(settings: QuickSettings, cell: Cell, pool: Pool, progress: Progress) -> dict[str, Any]:
    return {"taskness": 0.25 * cell["row"], "missing": None, "note": settings.note}


def _answer(settings: QuickSettings, records: list[Record]) -> Answer:
    figure, axes = plot("row", "taskness")
    band(axes, [0, 1], [[0.0, 0.1], [0.2, 0.5]], "a curve")
    axes.legend()
    plots = {"curve": Plot(figure, "Bands: ± s.e.")}
    arrays = {"split-0": {"train": np.arange(3), "test": np.arange(2)}}
    return Answer(records, f"It is so: {settings.note}.", plots, arrays)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Study("is it so?", QuickSettings, _cells, _measure, _answer, alone=True)
    monkeypatch.setitem(STUDIES, "quick", row)


def page_of(folder: Path, **settings: Any) -> Path:
    opened: StudyFolder = new_study(
        "quick", QuickSettings(**settings), folder, Pool(1, "cpu"), Progress()
    )
    run_study(opened, Pool(1, "cpu"), Progress())
    opened.close()
    return folder / "report.html"


@pytest.mark.usefixtures("quick")
def test_the_page_shows_reading_plots_table_and_how_to_make_it_again(tmp_path: Path) -> None:
    text = page_of(tmp_path / "study-1").read_text()
    for part in (
        "<h1>Is it so?</h1>",
        "It is so: none.",
        'src="data:image/png;base64,',
        'alt="Bands: ± s.e."',
        "<small>(curve.png)</small>",
        '<td class="n">0.500</td>',
        "<td>–</td>",
        "The same is in table.csv.",
        f"taskdisc study quick {tmp_path}/study-1/config.yaml",
        '<th scope="row">n_rows</th><td>3</td>',
        "3 cells took",
        "Arrays beside this page: split-0.npz, each with train, test.",
    ):
        assert part in text, part


@pytest.mark.usefixtures("quick")
def test_a_long_table_is_cut_and_says_so(tmp_path: Path) -> None:
    text = page_of(tmp_path / "study", n_rows=230).read_text()
    assert "The first 200 of 230 rows; all are in table.csv." in text
    assert (tmp_path / "study" / "table.csv").read_text().count("\n") == 231


@pytest.mark.usefixtures("quick")
def test_what_comes_from_files_is_escaped(tmp_path: Path) -> None:
    page = page_of(tmp_path / "study", note="<script>alert(1)</script>")
    environment = json.loads((page.parent / "environment.json").read_text())
    environment["platform"] = "<b>bold</b>"
    (page.parent / "environment.json").write_text(json.dumps(environment))
    opened = StudyFolder(page.parent)
    run_study(opened, Pool(1, "cpu"), Progress())
    opened.close()
    text = page.read_text()
    assert "<script" not in text and "<b>" not in text
    assert "&lt;script&gt;" in text and "&lt;b&gt;bold" in text


@pytest.mark.usefixtures("quick")
def test_browser_has_nothing_to_say_and_nothing_to_fetch(tmp_path: Path) -> None:
    visit = visited(page_of(tmp_path / "study"), tmp_path)
    assert "Is it so?" in visit.text
    assert visit.console == []
    assert visit.requests == []


def test_numbers_of_the_table() -> None:
    given = [None, float("nan"), -0.00001, 0.12345, 12345.6, 7, True, "1:4"]
    assert [cell_text(value) for value in given] == [
        "–", "–", "0.000", "0.123", "12346", "7", "True", "1:4",
    ]  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_the_images_of_the_source_are_called_read(tmp_path: Path) -> None:
    folder = page_of(tmp_path / "study-1").parent
    file = folder / "environment.json"
    environment = json.loads(file.read_text())
    assert "images.read" not in (folder / "report.html").read_text()
    file.write_text(json.dumps({**environment, "images": {"n": 1797, "content": "abc"}}))
    write_study(folder)
    assert '<th scope="row">images.read</th><td>1797</td>' in (folder / "report.html").read_text()
    file.write_text(json.dumps({**environment, "images": 3}))
    with pytest.raises(RunFolderError, match="as the study wrote it"):
        write_study(folder)
