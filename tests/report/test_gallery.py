import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, visited
from run_files import N_IMAGES, write_finished, write_lines, write_unfinished

from taskdisc.discovery.export import export_tasks
from taskdisc.errors import RunFolderError
from taskdisc.report.facts import read_facts
from taskdisc.report.gallery import render_gallery
from taskdisc.report.page import write_report

HOSTILE = "</script><img src=x onerror=hacked=1><!--"


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def change_result(folder: Path, change: Any) -> None:
    result = json.loads((folder / "result.json").read_text())
    change(result)
    (folder / "result.json").write_text(json.dumps(result))


def hostile(folder: Path) -> Path:
    def rename(result: dict[str, Any]) -> None:
        result["recovered"] = {HOSTILE: {**result["recovered"]["kind"], "classes": [HOSTILE]}}
        for task in result["tasks"]:
            task["known_classes"] = {HOSTILE: {HOSTILE: 2}}
            task["match"] = {HOSTILE: {**task["match"]["kind"], "class": HOSTILE}}

    change_result(folder, rename)
    return folder


def test_a_finished_run_has_a_gallery_and_another_none(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")
    report = write_report(folder).read_text(encoding="utf-8")
    gallery = (folder / "gallery.html").read_text(encoding="utf-8")
    assert 'href="gallery.html"' in report
    assert 'href="report.html"' in gallery
    assert "taskdisc export" in gallery
    write_report(write_unfinished(tmp_path / "stopped"))
    assert not (tmp_path / "stopped" / "gallery.html").exists()


def test_the_policy_lets_in_exactly_this_script_and_this_style(tmp_path: Path) -> None:
    page = render_gallery(read_facts(write_finished(tmp_path / "run")))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy[1]
    assert policy[1].startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy[1]
    assert not re.search(r"<[^>]* (style|on\w+)=", page.split("<style>")[0])


def test_the_same_run_gives_the_same_gallery(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")
    assert render_gallery(read_facts(folder)) == render_gallery(read_facts(folder))


def test_the_nearest_other_task_is_told(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run", (0.05, 0.5, 0.3))
    change_result(folder, lambda result: result["tasks"][1].update(positives=[5, 6]))
    rows = data_of(render_gallery(read_facts(folder)))["labelings"]
    assert [row["nearest"] for row in rows] == [
        {"number": 2, "ablation": 0.5},
        {"number": 1, "ablation": 0.5},
        {"number": 1, "ablation": 1.0},  # no task itself, and the first of equals
    ]
    alone = write_finished(tmp_path / "alone", (0.05, 0.5, 0.03))
    rows = data_of(render_gallery(read_facts(alone)))["labelings"]
    assert [row["nearest"] for row in rows] == [None, *[{"number": 1, "ablation": 1.0}] * 2]


def test_a_run_of_the_first_version_is_refused(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")

    def older(result: dict[str, Any]) -> None:
        result["schema"] = 1

    change_result(folder, older)
    with pytest.raises(RunFolderError, match=r"`schema` of .*result\.json' must be 2, got 1"):
        write_report(folder)


def test_images_without_classes_or_pictures_have_a_gallery(tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")

    def without_classes(result: dict[str, Any]) -> None:
        result["recovered"] = {}
        for task in result["tasks"]:
            task["match"] = {}
            task["known_classes"] = {}

    change_result(folder, without_classes)
    (folder / "pictures.npz").unlink()
    page = write_report(folder).with_name("gallery.html")
    assert "There are no pictures in the run folder" in page.read_text()
    assert data_of(page.read_text())["targets"] == []
    visit = visited(page, tmp_path)
    assert "2 of 3 shown" in visit.text
    assert visit.console == []


def test_what_comes_from_files_is_escaped(tmp_path: Path) -> None:
    folder = hostile(write_finished(tmp_path / "<b>run"))
    report = write_report(folder).read_text(encoding="utf-8")
    gallery = (folder / "gallery.html").read_text(encoding="utf-8")
    for page in (report, gallery):
        assert HOSTILE not in page
        assert "<img src=x" not in page
        assert "<b>run" not in page
    assert gallery.count("</script>") == 2
    assert HOSTILE in data_of(gallery)["labelings"][0]["match"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture
def gallery(browser: Browser, tmp_path: Path) -> Path:
    """The gallery of three labelings, of which two are tasks, open in the browser."""
    folder = write_finished(tmp_path / "run")
    change_result(folder, lambda result: result["tasks"][1].update(positives=[5, 6]))
    return visit(browser, folder)


def visit(browser: Browser, folder: Path, **window: Any) -> Path:
    """Open the gallery of a run in a browser that remembers nothing."""
    page = write_report(folder).with_name("gallery.html")
    browser.open(page)
    browser.run("localStorage.clear()")
    browser.open(page, **window)
    browser.forget()
    return page


def listed(browser: Browser) -> list[str]:
    """The names on the cards that are shown, in order."""
    return list(
        browser.run(
            "[...document.querySelectorAll('#cards > li:not([hidden]) .name')]"
            ".map((name) => name.textContent)"
        )
    )


def choose(browser: Browser, control: str, value: str) -> None:
    browser.run(
        f"(() => {{ const control = document.getElementById('{control}');"
        f"control.value = {json.dumps(value)};"
        "control.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def text(browser: Browser, selector: str) -> str:
    return str(browser.run(f"document.querySelector({json.dumps(selector)}).innerText"))


def saved(browser: Browser) -> Path:
    """The file that the button saves, moved out of the way of the next."""
    browser.run("document.getElementById('save').click()")
    file = browser.downloaded("keep.json")
    return file.rename(file.with_name(f"{len(list(browser.downloads.iterdir()))}.json"))


def test_browser_has_nothing_to_say_and_nothing_to_fetch(tmp_path: Path) -> None:
    page = write_report(write_finished(tmp_path / "run")).with_name("gallery.html")
    visit = visited(page, tmp_path)
    assert "2 of 3 shown" in visit.text
    assert visit.console == []
    assert visit.requests == []


def test_using_it_fetches_nothing_either(browser: Browser, gallery: Path) -> None:
    browser.press("/", "Enter", "Enter", "j", "y", "Escape")
    saved(browser)
    assert browser.console == []
    assert all(url.startswith(("data:", "blob:")) for url in browser.requests)


def test_the_policy_holds(browser: Browser, gallery: Path) -> None:
    """The control of the test above: what gets into the page neither runs nor leaves."""
    browser.run(
        "(() => { const script = document.createElement('script');"
        "script.textContent = 'window.hacked = 1'; document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend',"
        '\'<img src="https://images.invalid/x.png" onerror="window.hacked = 1">\'); })()'
    )
    browser.wait("document.images[0].complete")
    assert browser.run("window.hacked") is None
    assert any("Content Security Policy" in line for line in browser.console)
    assert not any(url.startswith("https:") for url in browser.requests)


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    visit(browser, hostile(write_finished(tmp_path / "run")))
    browser.press("/", "Enter", "Enter", "r")
    browser.type(HOSTILE)
    browser.press("Escape")
    assert listed(browser)[0] == HOSTILE
    assert HOSTILE in text(browser, "#evidence")
    assert browser.run("document.images.length") == 0
    assert browser.run("window.hacked") is None
    assert browser.console == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [("taskness", "123"), ("nearest", "312"), ("match", "231"), ("class", "132"), ("name", "123")],
)
def test_sorting(browser: Browser, gallery: Path, order: str, expected: str) -> None:
    choose(browser, "kind", "all")
    choose(browser, "order", order)
    assert listed(browser) == [f"Labeling {number}" for number in expected]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({}, "12"),
        ({"kind": "all"}, "123"),
        ({"find": "cow"}, "2"),
        ({"find": "CAT dog", "kind": "all"}, "3"),
        ({"find": "labeling 1"}, "1"),
        ({"find": "<b>"}, ""),
        ({"match": "yes"}, "2"),
        ({"match": "no"}, "1"),
        ({"least-taskness": "0.4"}, "1"),
        ({"least-ablation": "0.6", "kind": "all"}, "3"),
        ({"decision": "keep"}, ""),
        ({"decision": "open"}, "12"),
    ],
)
def test_filtering(browser: Browser, gallery: Path, choices: dict[str, str], expected: str) -> None:
    for control, value in choices.items():
        choose(browser, control, value)
    assert listed(browser) == [f"Labeling {number}" for number in expected]
    assert text(browser, "#count").startswith(f"{len(expected)} of 3 shown")
    off = browser.run("[...document.querySelectorAll('.node:not(.off) title')].length")
    assert off == len(expected)
    if not expected:
        browser.run("document.getElementById('reset').click()")
        assert len(listed(browser)) == 3


def test_the_keyboard_alone_is_enough(browser: Browser, gallery: Path) -> None:
    focus = "document.activeElement.querySelector('.name')?.textContent"
    is_open = "document.getElementById('dialog').open"
    browser.press("j")
    assert browser.run(focus) == "Labeling 1"
    browser.press("j")
    assert browser.run(focus) == "Labeling 2"
    browser.press("j", "ArrowLeft")
    assert browser.run(focus) == "Labeling 1"
    browser.press("ArrowRight", "k", "y", "j", "n")
    assert text(browser, "#count") == "2 of 3 shown · 1 kept · 1 dropped"
    browser.press("u")
    assert text(browser, "#count") == "2 of 3 shown · 1 kept · 0 dropped"
    browser.press("Enter")
    assert browser.run(is_open)
    assert text(browser, "#title").startswith("Labeling 2")
    browser.press("k")
    assert text(browser, "#title").startswith("Labeling 1")
    browser.press("r")
    browser.type("junk")  # neither moves nor drops while somebody types
    browser.press("Enter", "j", "Escape")
    assert not browser.run(is_open)
    assert browser.run(focus) == "Labeling 2"
    assert listed(browser) == ["junk", "Labeling 2"]
    browser.press("/")
    assert browser.run("document.activeElement.id") == "find"
    browser.type("junk")
    browser.press("Enter")
    assert browser.run(focus) == "junk"


def test_where_the_keyboard_is_can_be_seen(browser: Browser, gallery: Path) -> None:
    outline = "getComputedStyle(document.querySelector('#cards > li')).outlineStyle"
    assert browser.run(outline) == "none"
    browser.press("j")
    assert browser.run(outline) == "solid"


def test_deciding_through_a_filter_goes_on_to_the_next(browser: Browser, gallery: Path) -> None:
    choose(browser, "kind", "all")
    choose(browser, "decision", "open")
    browser.press("j", "y")
    assert listed(browser) == ["Labeling 2", "Labeling 3"]
    assert browser.run("document.activeElement.innerText").startswith("Labeling 2")
    browser.press("Enter", "n", "j")
    assert text(browser, "#title").startswith("Labeling 3")
    browser.press("Escape")
    assert listed(browser) == ["Labeling 3"]


def test_one_labeling_shows_all_its_images_bit_by_bit(browser: Browser, tmp_path: Path) -> None:
    folder = write_finished(tmp_path / "run")
    environment = json.loads((folder / "environment.json").read_text())
    environment["images"]["n"] = 900
    (folder / "environment.json").write_text(json.dumps(environment))
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    longer = [{**line, "labeling": line["labeling"].ljust(2 * 113, "0")} for line in lines]
    write_lines(folder / "trials.jsonl", longer)
    images = np.zeros((900, 8, 8, 3), np.uint8)
    np.savez(folder / "pictures.npz", positions=np.arange(900), images=images)
    visit(browser, folder, fragment="#labeling-1")
    assert text(browser, "#title").startswith("Labeling 1")
    n_shown = "document.querySelectorAll('#images li').length"
    assert browser.run(n_shown) < 900
    titles = "[...document.querySelectorAll('#images ul:first-of-type li')].map((i) => i.title)"
    assert browser.run(titles)[:2] == ["image 4", "image 5"]
    for _ in range(10):
        browser.run("document.querySelector('#images').scrollIntoView(false)")
    browser.wait(
        "(document.querySelector('#dialog').scrollTop += 2000,"
        "document.querySelectorAll('#images li').length === 900)"
    )


def test_what_is_saved_is_what_export_reads(browser: Browser, gallery: Path) -> None:
    choose(browser, "kind", "all")
    browser.press("j", "j", "n", "j", "r")
    browser.type("größe <&>")
    browser.press("Escape", "k", "k", "y")
    file = saved(browser)
    content = json.loads(file.read_text(encoding="utf-8"))
    assert {name: content[name] for name in ("schema", "run", "images")} == {
        "schema": 1,
        "run": "run",
        "images": "0123456789abcdef",
    }
    assert [(task["name"], task["keep"]) for task in content["tasks"]] == [
        ("", True),
        ("", False),
        ("größe <&>", True),
    ]
    exported = export_tasks([gallery.parent], gallery.with_name("out.npz"), file)
    assert [row.name for row in exported] == ["labeling-1", "größe <&>"]
    assert np.flatnonzero(exported[1].labeling).tolist() == [0, 2]
    assert len(exported[0].labeling) == N_IMAGES

    # A reload forgets nothing, and a file brings all back to a browser that knows nothing.
    browser.open(gallery)
    assert text(browser, "#count") == "2 of 3 shown · 2 kept · 1 dropped"
    browser.run("localStorage.clear()")
    browser.open(gallery)
    assert text(browser, "#count") == "2 of 3 shown · 0 kept · 0 dropped"
    load(browser, file.read_text(encoding="utf-8"))
    browser.wait("document.getElementById('message').innerText.startsWith('Loaded 3')")
    assert text(browser, "#count") == "2 of 3 shown · 2 kept · 1 dropped"
    choose(browser, "kind", "all")
    assert listed(browser) == ["Labeling 1", "Labeling 2", "größe <&>"]


def load(browser: Browser, content: str) -> None:
    browser.run(
        "(() => { const given = new DataTransfer();"
        f"given.items.add(new File([{json.dumps(content)}], 'keep.json'));"
        "const file = document.getElementById('file'); file.files = given.files;"
        "file.dispatchEvent(new Event('change')); })()"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "it is no JSON"),
        ('{"schema": 2}', "its schema is 2, not 1"),
        ('{"schema": 1, "images": "x"}', "for other images"),
        (
            '{"schema": 1, "images": "0123456789abcdef", "tasks": [{"key": "x"}]}',
            "a labeling that this run does not have",
        ),
    ],
)
def test_a_bad_file_is_not_loaded(
    browser: Browser, gallery: Path, content: str, words: str
) -> None:
    load(browser, content)
    browser.wait(f"document.getElementById('message').innerText.includes({json.dumps(words)})")
    assert text(browser, "#count").endswith("0 kept · 0 dropped")


def test_two_of_one_name_are_told_of(browser: Browser, gallery: Path) -> None:
    browser.press("j", "r")
    browser.type("round")
    browser.press("Enter", "j", "r")
    browser.type("round")
    assert "Labeling 1 has this name too" in text(browser, "#name-note")


def test_a_browser_that_refuses_to_remember_still_works(browser: Browser, gallery: Path) -> None:
    added = browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }})",
    )
    try:
        browser.open(gallery)
        browser.press("j", "y")
        assert text(browser, "#count") == "2 of 3 shown · 1 kept · 0 dropped"
        assert "save keep.json before you leave" in text(browser, "#message")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **added)


def test_the_map_opens_a_labeling(browser: Browser, gallery: Path) -> None:
    browser.run("document.querySelector('.node').dispatchEvent(new MouseEvent('click'))")
    assert browser.run("document.getElementById('dialog').open")


def test_a_narrow_window_is_never_overflown(browser: Browser, gallery: Path) -> None:
    browser.open(gallery, width=390, height=800)
    browser.press("j", "r")
    browser.type("a name of many letters" + "m" * 50)
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert browser.run(wide)
    dialog = "document.getElementById('dialog')"
    assert browser.run(f"{dialog}.scrollWidth <= {dialog}.clientWidth")
    browser.press("Escape")
    assert browser.run(wide)
    browser.resize(320, 600)
    assert browser.run(wide)


def test_every_control_has_a_name(browser: Browser, gallery: Path) -> None:
    browser.press("j", "Enter")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "textbox", "searchbox", "combobox", "spinbutton", "list", "image")
    controls = [node for node in nodes if node.get("role", {}).get("value") in roles]
    assert len(controls) > 5
    assert [node for node in controls if not node.get("name", {}).get("value")] == []
