import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.files import csv_text, write_atomic, write_json, write_npz


@pytest.mark.parametrize(("content", "data"), [("é\n", "é\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_text_and_bytes_arrive_and_replace(tmp_path: Path, content: Any, data: bytes) -> None:
    path = tmp_path / "a file"
    path.write_text("before")
    write_atomic(path, content)
    assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["a file"]


def test_results_are_as_readable_as_other_files(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "result", "x")
        (tmp_path / "plain").write_text("x")
        assert os.umask(0o027) == 0o027  # and the process's own mask is unchanged
    finally:
        os.umask(mask)
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "result"
    path.write_text("before")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["result"]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "result", "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan(tmp_path: Path, value: float) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": value})
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_arrays_are_compressed_and_need_no_pickle(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    arrays = {"labelings": np.eye(300, dtype=np.uint8), "hashes": np.array(["ab", "cd"])}
    write_npz(path, arrays)
    with np.load(path, allow_pickle=False) as loaded:
        assert set(loaded.files) == set(arrays)
        assert all(np.array_equal(loaded[name], array) for name, array in arrays.items())
    plain = io.BytesIO()
    np.savez(plain, **arrays)
    assert path.stat().st_size < len(plain.getvalue()) / 2


def test_a_table_holds_no_formulas_and_all_its_numbers() -> None:
    names = ["=1+1", "+1", "-a", "@SUM(A1)", "\t=1", "\r=1", "plain =1", "a,b", "'x"]
    lines: list[dict[str, Any]] = [{"row": name, "gain": -0.3} for name in names]
    lines += [{"row": None, "gain": -2}, {"=cmd": np.float64(-0.5)}]
    rows = list(csv.reader(io.StringIO(csv_text(lines), newline="")))
    assert rows[0] == ["row", "gain", "'=cmd"]
    assert [row[0] for row in rows[1:]] == [
        *("'=1+1", "'+1", "'-a", "'@SUM(A1)", "'\t=1", "' =1", "plain =1", "a,b", "'x", "", "")
    ]
    assert [row[1] for row in rows[1:]] == ["-0.3"] * 9 + ["-2", ""]
    assert rows[-1][2] == "-0.5"


def test_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    with pytest.raises(ValueError, match="holds objects"):
        write_npz(path, {"labelings": np.array([{}, None], dtype=object)})
    assert not path.exists()
