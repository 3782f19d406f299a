import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

import taskdisc.journal
from taskdisc.errors import RunFailedError, RunFolderError
from taskdisc.journal import Journal, MemoryJournal, lines_of, read_journal

LINES: list[dict[str, Any]] = [
    {"trial": 0, "taskness": 0.1, "labeling": "ff00"},
    {"trial": 1, "taskness": 1 / 3, "name": "Größe 数 \u2028 \r\n"},
    {"trial": 2, "nested": [{"a": None}]},
]
TEXT = "".join(json.dumps(line) + "\n" for line in LINES).encode()


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    journal = Journal(path)
    assert journal.lines == []
    journal.append(LINES[:1])
    journal.append(LINES[1:])
    assert journal.lines == LINES
    assert read_journal(path) == LINES
    assert Journal(path).lines == LINES
    assert path.read_bytes().count(b"\n") == 3


def test_lines_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    journal = Journal(path)
    journal.append(LINES)
    lines = iter(journal.lines)
    assert next(lines) == LINES[0]
    journal.append([{"later": 1}])
    assert list(lines) == LINES[1:]  # those that there were
    assert journal.lines[-1] == {"later": 1}
    assert [journal.lines[i] for i in range(4)] == [*LINES, {"later": 1}]
    assert journal.lines[1:3] == LINES[1:]
    assert journal.lines != LINES
    assert list(lines_of(path)) == read_journal(path) == journal.lines
    with pytest.raises(IndexError):
        journal.lines[4]


def test_a_line_that_is_just_being_written_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(TEXT + b'{"tri')
    parse = taskdisc.journal._parse

    def parse_while_it_grows(raw: bytes) -> dict[str, Any] | None:
        line = parse(raw)
        if line is None:
            with path.open("ab") as file:
                file.write(b'al": 3}\n{"trial": 4}\n')
        return line

    monkeypatch.setattr(taskdisc.journal, "_parse", parse_while_it_grows)
    assert read_journal(path) == LINES


def test_appending_nothing_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(TEXT)
    Journal(path).append([])
    assert path.read_bytes() == TEXT


def test_the_memory_journal_keeps_the_same_lines(tmp_path: Path) -> None:
    memory, file = MemoryJournal(), Journal(tmp_path / "trials.jsonl")
    for journal in (memory, file):
        journal.append(iter(LINES))
    assert memory.lines == file.lines == LINES


def test_lines_are_copies(tmp_path: Path) -> None:
    for journal in (MemoryJournal(), Journal(tmp_path / "trials.jsonl")):
        line = {"a": 1}
        journal.append([line])
        line["a"] = 2
        assert journal.lines == [{"a": 1}]


def test_a_journal_cut_anywhere_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    for cut in range(len(TEXT) + 1):
        path.write_bytes(TEXT[:cut])
        n_whole = TEXT[:cut].count(b"\n")
        assert read_journal(path) == LINES[:n_whole]
        assert path.read_bytes() == TEXT[:cut]  # reading touches nothing
        journal = Journal(path)
        assert journal.lines == LINES[:n_whole]
        journal.append(LINES[n_whole:])
        assert path.read_bytes() == TEXT


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\xff\xfe", b'{"trial": 3', b"{}"])
def test_a_torn_last_line_of_any_kind_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(TEXT + tail)
    assert Journal(path).lines == LINES
    assert path.read_bytes() == TEXT


@pytest.mark.parametrize("middle", [b"torn\n", b'{"a": 1\n', b"[1]\n", b"7\n", b"\xff\n", b"\n"])
def test_a_torn_line_in_the_middle_is_refused(tmp_path: Path, middle: bytes) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(b'{"a": 1}\n' + middle + TEXT)
    for read in (Journal, read_journal):
        with pytest.raises(
            RunFolderError, match=r"line 2 of .*trials\.jsonl. must be a JSON object"
        ):
            read(path)
    assert path.read_bytes() == b'{"a": 1}\n' + middle + TEXT


def test_no_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_a_full_disk_is_said_and_nothing_pretended(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    path = tmp_path / "trials.jsonl"
    journal = Journal(path)
    path.symlink_to("/dev/full")
    with pytest.raises(RunFailedError, match=r"trials\.jsonl. cannot be written \(No space left"):
        journal.append(LINES)
    assert journal.lines == []


def test_a_disk_that_fills_up_half_way_loses_only_the_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.jsonl"
    journal = Journal(path)
    journal.append(LINES[:2])
    whole = path.stat().st_size

    def full(handle: int) -> None:
        os.ftruncate(handle, whole + 9)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunFailedError, match="everything before is kept"):
            journal.append(LINES[2:])
    assert path.stat().st_size == whole + 9
    again = Journal(path)
    assert again.lines == LINES[:2]
    again.append(LINES[2:])
    assert path.read_bytes() == TEXT


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="cannot be written"):
        Journal(tmp_path / "gone" / "trials.jsonl").append(LINES)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, value: Any
) -> None:
    path = tmp_path / "trials.jsonl"
    journal = Journal(path)
    journal.append(LINES)
    with pytest.raises((ValueError, TypeError), match="JSON"):
        journal.append([{"a": 1}, {"a": value}])
    assert path.read_bytes() == TEXT
    assert journal.lines == LINES
