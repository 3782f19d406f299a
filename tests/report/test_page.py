import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import Browser, visited
from run_files import write_finished, write_unfinished

from taskdisc.errors import RunFailedError, RunFolderError
from taskdisc.report.facts import read_facts
from taskdisc.report.page import render, verdict, write_report

HOSTILE = "<script>alert('x')</script>\"&{{ 7 * 7 }}"


class Outline(HTMLParser):
    """Collects a page's tags and text, and checks that what opens is closed."""

    VOID = frozenset({"meta", "link", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_page_of_a_finished_run(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")
    assert write_report(folder) == folder / "report.html"
    page = Outline((folder / "report.html").read_text(encoding="utf-8"))
    assert "2 of 3 labelings found are tasks" in page.text
    assert "0.500 ± 0.020" in page.text
    assert "Not a task: its confirmed taskness is not above T task = 0.090 and its" in page.text
    assert "The search took 7.5 s, the confirmation 1 min 01 s of wall time." in page.text
    assert "Storn" in page.text
    assert "Unconfirmed" not in page.text
    # Two positives and all eight negatives of three labelings, each with words in its place.
    pictures = page.of("img")
    assert len(pictures) == 3 * 10
    assert all(str(picture["src"]).startswith("data:image/png;") for picture in pictures)
    assert all(picture["alt"] for picture in pictures)
    assert [bool(plot.get("aria-label")) for plot in page.of("svg") if "role" in plot] == [True] * 5
    assert page.of("script") == []


def test_classes_that_came_back_are_told(tmp_path: Path) -> None:
    page = Outline(write_report(write_finished(tmp_path / "run")).read_text(encoding="utf-8"))
    assert "classes recovered (kind) 1 of 5; 2 with those that are no tasks" in page.text
    assert "cow (2 of 2)" in page.text
    assert "Best class (kind): “cow” , 2 of 2 positives: recovered" in page.text
    assert "Best class (kind): “ant” , 1 of 2 positives." in page.text


def test_at_one_to_one_the_flip_may_match(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run", ratio=1)
    result = json.loads((folder / "result.json").read_text())
    result["tasks"][0]["match"]["kind"]["flipped"] = True
    (folder / "result.json").write_text(json.dumps(result))
    text = Outline(render(read_facts(folder))).text
    assert "“ant” , 1 of 2 negatives" in text
    assert "At 1:1 a labeling and its flip are the same task." in text
    assert "or of its negatives" in text


def test_every_link_within_the_page_has_its_target_once(tmp_path: Path) -> None:
    page = Outline(render(read_facts(write_finished(tmp_path / "run"))))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(link["href"]) for link in page.of("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    labels = [a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a]
    assert set(labels) <= set(ids)


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")
    assert render(read_facts(folder)) == render(read_facts(folder))


@pytest.mark.parametrize("n_trials", [0, 1, 5])
def test_page_of_an_unfinished_run(tmp_path: Path, n_trials: int) -> None:
    folder = write_unfinished(tmp_path / "run", n_trials)
    page = Outline(write_report(folder).read_text(encoding="utf-8"))
    assert f"This run has not finished: {n_trials} of up to 8 labelings" in page.text
    assert "Unconfirmed." in page.text
    assert f"taskdisc search --resume {folder}" in page.text
    assert "are tasks" not in page.text


@pytest.mark.parametrize(
    ("confirmed", "sentence"),
    [
        ((0.01, -0.02, 0.03), "None of the 3 labelings found is a task"),
        ((0.01, 0.2, 0.03), "1 of 3 labelings found is a task"),
        ((0.3, 0.2, 0.4), "3 of 3 labelings found are tasks"),
    ],
)
def test_verdict(tmp_path: Path, confirmed: tuple[float, ...], sentence: str) -> None:
    facts = read_facts(write_finished(tmp_path / "run", confirmed))
    assert verdict(facts).startswith(sentence)
    assert sentence in Outline(render(facts)).text


def test_pictures_may_be_missing(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")
    (folder / "pictures.npz").unlink()
    page = Outline(render(read_facts(folder)))
    assert page.of("img") == []
    assert "there are no pictures in the run folder" in page.text


def test_what_comes_from_files_is_escaped(tmp_path: Path) -> None:
    folder = write_finished(
        tmp_path / "<b>run & co", images={"source": HOSTILE, "root": HOSTILE}, proposer=HOSTILE
    )
    environment = json.loads((folder / "environment.json").read_text())
    environment["command"] += [HOSTILE]
    environment["platform"] = {HOSTILE: HOSTILE}
    (folder / "environment.json").write_text(json.dumps(environment))
    text = write_report(folder).read_text(encoding="utf-8")
    page = Outline(text)
    assert page.of("script") == []
    assert page.of("b") == []
    assert HOSTILE in page.text
    assert "<b>run & co" in page.text


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: str) -> None:
        raise OSError(28, "No space left on device")

    folder = write_finished(tmp_path / "run")
    monkeypatch.setattr("taskdisc.report.page.write_atomic", full)
    with pytest.raises(RunFailedError, match="No space left"):
        write_report(folder)


def test_no_page_of_a_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="which does not exist"):
        write_report(tmp_path / "nothing")


def test_browser_has_nothing_to_say_and_nothing_to_fetch(tmp_path: Path) -> None:
    page = write_report(write_finished(tmp_path / "run"))
    visit = visited(page, tmp_path)
    assert "2 of 3 labelings found are tasks" in visit.text
    assert visit.console == []
    assert visit.requests == []


def test_browser_would_tell(tmp_path: Path) -> None:
    """The control of the test above: a page that does leave, and that complains."""
    page = tmp_path / "page.html"
    page.write_text("<img src='https://images.invalid/x.png'><script>console.error('no')</script>")
    visit = visited(page, tmp_path)
    assert visit.requests == ["https://images.invalid/x.png"]
    assert any("no" in line for line in visit.console)


def test_the_wall_time_stays_on_one_line(tmp_path: Path) -> None:
    facts = read_facts(write_finished(tmp_path / "run"))
    page = tmp_path / "page.html"
    page.write_text(render(replace(facts, seconds={"search": 45000.0, "confirm": 296.0})))
    with Browser(tmp_path) as browser:
        for width in (400, 700, 900, 1000, 1100, 1280):
            browser.open(page, width=width)
            heights = browser.run(
                "[...document.querySelectorAll('.time')].map(d => d.clientHeight)"
            )
            one = browser.run("document.querySelector('.figures dd').clientHeight")
            assert heights == [one]
            assert browser.run("document.querySelector('.time').innerText") == "12 h 34 min"
            free = browser.run(
                "(d => d.clientWidth - d.scrollWidth)(document.querySelector('.time'))"
            )
            assert free >= 0
