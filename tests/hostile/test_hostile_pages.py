"""Names that would be code stay text on every page, and no page lets a script in but ours."""

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import visited
from matplotlib.text import Text
from PIL import Image
from readers import MTL
from run_files import write_finished, write_unfinished

from taskdisc.config import settings_from
from taskdisc.errors import SettingError
from taskdisc.report.page import write_report
from taskdisc.report.pictures import png
from taskdisc.studies import STUDIES
from taskdisc.studies.drawing import figure_of
from taskdisc.studies.run import markdown, write_study

NAMES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror="hacked=1">',
    "' onmouseover='hacked=1",
    "</script><script>hacked=1</script>",
    "</style><style>*{display:none}</style>",
    "]]><svg onload=hacked=1>",
    "javascript:hacked=1",
    "<!--",
    "{{ 7 * 7 }}{% raw %}",
    "</title><base href=//evil.invalid><meta http-equiv=refresh content=0>",
    "\u2028\u2029\\u003cscript>",
    "$\\frac{",
    "\u202e\u2066gnitirw",
    "\x1b[2J\x07\x7f",
    "a\nb\tc",
    "x" * 5000,
]

ADDRESSES = {"href", "src"}


class Parsed(HTMLParser):
    """What a browser would make of a page: its elements, addresses, scripts and policy."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.policy: list[str] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {name: value or "" for name, value in attrs}
        self.attributes += list(values.items())
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy.append(values["content"])
        self._in = tag if tag in self.inline and values.get("type") != "application/json" else ""
        if self._in:
            self.inline[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.inline[self._in][-1] += data
        else:
            self.text += data


def assert_safe(page: str, clean: str, name: str) -> None:
    """The page is that of harmless names, but for its text."""
    found, wanted = Parsed(page), Parsed(clean)
    assert found.tags == wanted.tags
    assert [n for n, _ in found.attributes] == [n for n, _ in wanted.attributes]
    assert not [n for n, _ in found.attributes if n.startswith("on") or n == "style"]
    for attribute, value in found.attributes:
        if attribute in ADDRESSES:
            assert re.match(r"(https?://|#|data:(image/png;|,)|(report|gallery)\.html)", value)
    # The script is ours, and the policy lets in that one and no other.
    assert found.inline["script"] == wanted.inline["script"]
    (policy,) = found.policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    hashes = {
        f"{kind}-src": " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'"
            for t in texts
        )
        for kind, texts in found.inline.items()
        if texts
    }
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        **hashes,
    }
    assert "unsafe" not in policy
    assert name in found.text or json.dumps(name)[1:-1].replace("<", "\\u003c") in found.text


def renamed(folder: Path, name: str) -> Path:
    """A run whose classes, targets and environment have this name."""
    result = json.loads((folder / "result.json").read_text())
    result["recovered"] = {name: {**result["recovered"]["kind"], "classes": [name]}}
    for task in result["tasks"]:
        task["known_classes"] = {name: {name: 2}}
        task["match"] = {name: {**task["match"]["kind"], "class": name}}
    (folder / "result.json").write_text(json.dumps(result))
    environment = json.loads((folder / "environment.json").read_text())
    environment["platform"] = name
    environment["command"] = ["taskdisc", "search", name]
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def pages_of(folder: Path) -> list[str]:
    report = write_report(folder)
    files = (report, report.with_name("gallery.html"))
    return [file.read_text(encoding="utf-8") for file in files if file.exists()]


@pytest.mark.parametrize("name", NAMES)
def test_names_on_report_and_gallery_stay_text(name: str, tmp_path: Path) -> None:
    images = {"images": {"source": name, "root": f"/x/{name}"}}
    odd = renamed(write_finished(tmp_path / "run", **images), name)
    root = {"images": {"source": "name", "root": "/x/name"}}
    clean = renamed(write_finished(tmp_path / "plain", **root), "name")
    for page, plain in zip(pages_of(odd), pages_of(clean), strict=True):
        assert_safe(page, plain, name)
    (unfinished,) = pages_of(write_unfinished(tmp_path / "half", **images))
    (plain,) = pages_of(write_unfinished(tmp_path / "other", **root))
    assert_safe(unfinished, plain, name)


def test_a_run_folder_of_such_a_name(tmp_path: Path) -> None:
    name = '"><img src=x onerror=hacked=1>'
    pages = zip(
        pages_of(write_finished(tmp_path / name)),
        pages_of(write_finished(tmp_path / "name")),
        strict=True,
    )
    for page, plain in pages:
        assert_safe(page, plain, name)


def study_page(made: Path, folder: Path, name: str, task: str) -> str:
    """The page of a study or comparison whose names are others."""
    shutil.copytree(made, folder)
    environment = json.loads((folder / "environment.json").read_text())
    environment["platform"] = name
    environment["images"]["note"] = name
    environment["command"] = ["taskdisc", "study", name]
    del environment["settings"]  # their digest: names are changed there too
    (folder / "environment.json").write_text(json.dumps(environment))
    if task:
        _rename_task(folder, task, name)
    write_study(folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def _rename_task(folder: Path, old: str, new: str) -> None:
    """Another name for a task and for a row, in the settings and in the records."""
    from taskdisc.config import dump_settings, read_yaml

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {(new if k in (old, "equal") else k): changed(v) for k, v in value.items()}
        if isinstance(value, list):
            return [changed(inner) for inner in value]
        return new if value == old else value

    values = read_yaml(folder / "config.yaml")
    values["tasks"] = {new: values["tasks"][old]}
    values["rows"] = {new: values["rows"]["equal"]}
    (folder / "config.yaml").write_text(
        dump_settings(settings_from(STUDIES["mtl"].settings, values))
    )
    lines = []
    for line in (folder / "cells.jsonl").read_text().splitlines():
        record = json.loads(line)
        cell = {k: new if v in (old, "equal") else v for k, v in record["cell"].items()}
        lines.append(json.dumps({**record, "cell": cell, "record": changed(record["record"])}))
    (folder / "cells.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", (NAMES[1], NAMES[3], NAMES[5]))
@pytest.mark.parametrize(("of", "task"), [("noise", ""), ("mtl", "digit")])
def test_names_on_pages_of_studies_and_comparisons_stay_text(
    of: str, task: str, name: str, made: dict[str, Path], tmp_path: Path
) -> None:
    page = study_page(made[of], tmp_path / "odd", name, task)
    plain = study_page(made[of], tmp_path / "plain", "name", task)
    assert_safe(page, plain, name)


def test_no_name_is_code_in_a_browser(tmp_path: Path) -> None:
    folder = renamed(write_finished(tmp_path / "run"), NAMES[3] + NAMES[1])
    page = write_report(folder)
    for file in (page, page.with_name("gallery.html")):
        (tmp_path / file.stem).mkdir()
        visit = visited(file, tmp_path / file.stem)
        assert visit.console == [], file
        assert visit.requests == []
        assert "hacked" in visit.text and "2 of 3" in visit.text


DRAWN = [*NAMES, "x" * 100_000, "größe 猫 🐈", "$\\frac{1}{0}$", "\ud800", "\n" * 3000, "-1", ""]


@pytest.mark.parametrize("name", DRAWN, ids=range(len(DRAWN)))
def test_figures_take_any_name(name: str) -> None:
    """Nothing warns or raises, no name is a formula, and every figure keeps its size."""
    figure, (axes,) = figure_of(1, height=6)
    axes.plot([0, 1], [0, 1], label=f"row {name}")
    axes.legend()
    axes.set(title=f"{name}: 3 of 4", xlabel=name, ylabel="loss")
    axes.set_xticks([0, 1], [name, "other"], rotation=45)
    axes.set_yticks([0, 1], [name, "other"])
    axes.annotate(name, (0.5, 0.5))
    with Image.open(io.BytesIO(png(figure, dpi=50))) as picture:
        assert picture.size == (300, 300)
    texts = figure.findobj(Text)
    assert not any(text.get_parse_math() for text in texts)
    # As drawn: those at ticks have just been written.
    shown = "".join(text.get_text() for text in texts)
    assert shown.replace("\n", "").isprintable() and "other" in shown
    assert len(shown) < 2000


def test_a_table_of_markdown_keeps_its_cells() -> None:
    name = "a|b\n<img src=x>"
    assert markdown([{"row": name, "gain": -0.5}]).splitlines() == [
        "| row | gain |",
        "|---|---|",
        "| a\\|b &lt;img src=x> | −0.500 |",
    ]


@pytest.mark.parametrize("of", ["rows", "tasks", "across"])
@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\u202egnitirw", "x" * 301])
def test_rows_and_tasks_have_names_that_fit_a_line(of: str, name: str) -> None:
    given = {**MTL, of: {name: next(iter(MTL[of].values()))} if of in MTL else {name: {}}}
    with pytest.raises(SettingError, match="at most 300 letters on one line, got"):
        settings_from(STUDIES["mtl"].settings, given)


def test_pictures_take_any_name(tmp_path: Path) -> None:
    """A contact sheet draws names; it neither ends lines at them nor grows with them."""
    import numpy as np
    from readers import images

    from taskdisc.images import ImageSet
    from taskdisc.images.contact_sheet import class_sheet

    usual = class_sheet(images())
    for name in DRAWN:
        named = ImageSet(
            "array", images().images, {"kind": np.arange(10) % 2}, {"kind": [name, "other"]}
        )
        sheet = class_sheet(named)
        assert sheet.height == usual.height and sheet.width < usual.width + 400
