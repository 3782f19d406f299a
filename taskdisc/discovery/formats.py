"""The formats of a file of tasks: one table, a writer and a reader each; none unpickles."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.archives import bomb_size, one_line
from taskdisc.discovery.manifest import (
    HASH,
    INDEX,
    MISSING,
    NUMBERS,
    SCHEMA,
    Content,
    check_content,
    content_of,
    digest_of,
    parse_manifest,
    text_array,
)
from taskdisc.errors import RunFolderError, SettingError, TaskdiscError, did_you_mean
from taskdisc.files import write_atomic, write_npz
from taskdisc.json_text import parse_json
from taskdisc.labelings import read_arrays


@dataclass(frozen=True)
class Format:
    """A way of writing tasks to one file.

    Attributes:
        ending: Of the file's name.
        write: Writes atomically.
        read: Reads what `write` wrote; raises anything at a file that is not so.
    """

    ending: str
    write: Callable[[Path, Content], None]
    read: Callable[[Path], Content]


def format_of(path: Path | None, name: str | None) -> Format:
    """The format of a file, by its name, its ending or both; `npz` by neither.

    Raises:
        SettingError: an unknown format or ending, or two that do not agree.
    """
    if name is not None and name not in FORMATS:
        raise SettingError(
            f"`format` must be a known one, got {name!r}; {did_you_mean(name, FORMATS)}"
        )
    if path is None:
        return FORMATS[name or "npz"]
    endings = {row.ending: row for row in FORMATS.values()}
    wanted = [FORMATS[name].ending] if name else list(endings)
    if path.suffix not in wanted:
        of = f" for the format {name}" if name else ""
        raise SettingError(
            f"the file must be one with the ending {' or '.join(wanted)}{of}, got '{path}'."
        )
    return endings[path.suffix]


def read_content(path: Path) -> Content:
    """What a file of tasks holds, by the reader of its ending, checked.

    Raises:
        SettingError: another ending, or a package that its format needs is missing.
        RunFolderError: it cannot be read, or it is not as its manifest says.
    """
    read = format_of(path, None).read
    try:
        content = read(path)
        check_content(path, content)
        return content
    except (TaskdiscError, MemoryError):
        raise
    except Exception as error:  # there is no end to what damaged bytes make their readers raise
        raise RunFolderError(
            f"'{path}' must be a file of tasks, but it is torn or foreign ({one_line(error)}); "
            "write it again with taskdisc export."
        ) from error


def _write_npz(path: Path, content: Content) -> None:
    tasks = content.manifest["tasks"]
    arrays = {
        "labelings": content.labelings,
        "indices": content.indices,
        "hashes": content.hashes,
        "names": np.array(content.names, dtype=np.str_),
        "manifest": np.array(json.dumps(content.manifest, allow_nan=False)),
    }
    arrays |= {name: _numbers(tasks, name) for name in NUMBERS}
    write_npz(path, arrays)


def _read_npz(path: Path) -> Content:
    """A search leaves no manifest and no names: a manifest is made of what it does leave."""
    try:
        arrays = read_arrays(path)
    except SettingError as error:  # as all damaged files of tasks
        raise RunFolderError(str(error)) from error
    missing = {"labelings", "indices", "hashes", *NUMBERS} - set(arrays)
    if missing:
        raise RunFolderError(
            "a file of tasks must hold the arrays of a run's tasks.npz, got "
            f"'{path}' without {', '.join(sorted(missing))}."
        )
    labelings, indices, hashes = (arrays[name] for name in ("labelings", "indices", "hashes"))
    if "manifest" not in arrays:
        names = arrays.get("names", default_names(len(labelings))).tolist()
        columns = {name: arrays[name].tolist() for name in NUMBERS}
        rows = zip(names, *columns.values(), strict=True)
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "images": {"n": len(hashes), "content": content_of(hashes)},
            "digest": digest_of(labelings, indices, hashes),
            "tasks": [dict(zip(("name", *columns), row, strict=True)) for row in rows],
        }
        return Content(manifest, labelings, indices, hashes)
    manifest = parse_manifest(path, str(arrays["manifest"]))
    same = arrays["names"].tolist() == [task["name"] for task in manifest["tasks"]]
    for name in NUMBERS if same else ():
        same = same and np.array_equal(arrays[name], _numbers(manifest["tasks"], name), True)
    if not same:
        raise ValueError("its arrays are of other tasks than its manifest")
    return Content(manifest, labelings, indices, hashes)


def default_names(n_labelings: int) -> np.ndarray:
    """The names of labelings that nobody named, by their numbers on the page of their run."""
    return np.array([f"labeling-{number}" for number in range(1, n_labelings + 1)], dtype=np.str_)


def _numbers(tasks: list[dict[str, Any]], name: str) -> np.ndarray:
    values = [task[name] for task in tasks]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


_CELLS = {"0": 0, "1": 1, "": MISSING}
_COMMENT = "# "


def _write_csv(path: Path, content: Content) -> None:
    # A line for each task, for a reader of flesh and blood.
    first = {name: value for name, value in content.manifest.items() if name != "tasks"}
    tasks = [_json(task) for task in content.manifest["tasks"]]
    head = [f'{_json(first)[:-1]}, "tasks": [', *(f"{task}," for task in tasks[:-1])]
    head += [*tasks[-1:], "]}"]
    text = io.StringIO()
    text.writelines(f"{_COMMENT}{line}\n" for line in head)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([INDEX, HASH, *content.names])
    cells = np.array(["0", "1", ""])[content.labelings.astype(np.int8)]  # −1 is the last
    for index, digest, row in zip(content.indices, content.hashes, cells.T, strict=True):
        writer.writerow([index, digest, *row.tolist()])
    write_atomic(path, text.getvalue())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _read_csv(path: Path) -> Content:
    text = path.read_bytes().decode("utf-8")  # as it is, for a name may hold an odd end of line
    head, start = [], 0
    while text.startswith(_COMMENT, start):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        head.append(text[start + len(_COMMENT) : end])
        start = end + 1
    manifest = parse_manifest(path, "\n".join(head))
    lines = csv.reader(io.StringIO(text[start:], newline=""), strict=True)
    _check_columns(next(lines, []), manifest)
    n_tasks = len(manifest["tasks"])
    indices, hashes, rows = [], [], []
    for line in lines:
        if len(line) != n_tasks + 2:
            raise ValueError(f"line {lines.line_num + len(head)} has {len(line)} cells")
        wrong = next((cell for cell in line[2:] if cell not in _CELLS), None)
        if wrong is not None:
            raise ValueError(f"labels must be 0, 1 or, where unknown, nothing, got {wrong[:40]!r}")
        indices.append(int(line[0]))
        hashes.append(line[1])
        rows.append(bytes(_CELLS[cell] & 0xFF for cell in line[2:]))
    labelings = np.frombuffer(b"".join(rows), dtype=np.int8).reshape(len(rows), n_tasks).T
    return Content(manifest, labelings, np.array(indices, np.int64), text_array(hashes))


def _check_columns(found: list[str], manifest: dict[str, Any]) -> None:
    if found != [INDEX, HASH, *(task["name"] for task in manifest["tasks"])]:
        raise ValueError("its columns are of other tasks than its manifest")


_METADATA = b"taskdisc"


def _write_parquet(path: Path, content: Content) -> None:
    pa, parquet = _pyarrow()
    columns = [pa.array(content.indices), pa.array(content.hashes.tolist(), pa.string())]
    columns += [pa.array(row.astype(np.int8), mask=row == MISSING) for row in content.labelings]
    kinds = [pa.int64(), pa.string(), *[pa.int8()] * len(content.labelings)]
    fields = list(zip([INDEX, HASH, *content.names], kinds, strict=True))
    metadata = {_METADATA: json.dumps(content.manifest, allow_nan=False).encode()}
    file = io.BytesIO()
    parquet.write_table(pa.table(columns, schema=pa.schema(fields, metadata=metadata)), file)
    write_atomic(path, file.getvalue())


def _read_parquet(path: Path) -> Content:
    pa, parquet = _pyarrow()
    # Of hashes that are the same, one is kept: a dictionary of long ones could be without end.
    with parquet.ParquetFile(path, read_dictionary=[HASH]) as file:
        schema = file.schema_arrow
        manifest = parse_manifest(path, (schema.metadata or {}).get(_METADATA, b"").decode())
        size = file.metadata.num_rows * (32 + len(schema.names))  # of an index, a hash, labels
        if size > bomb_size(path.stat().st_size):
            raise ValueError(f"its {file.metadata.num_rows:,} rows are more than it can hold")
        _check_columns(schema.names, manifest)
        hashes = pa.dictionary(pa.int32(), pa.string())
        if schema.types != [pa.int64(), hashes, *[pa.int8()] * (len(schema.names) - 2)]:
            raise ValueError("its columns are of other types than int64, string and int8")
        _check_compression(file.metadata)
        table = file.read()
    images, tasks = table.columns[:2], table.columns[2:]
    if any(column.null_count for column in images):
        raise ValueError("images lack an index or a hash")
    rows = [column.fill_null(MISSING).to_numpy() for column in tasks]
    labelings = np.array(rows, dtype=np.int8).reshape(len(rows), len(table))
    known = [chunk.dictionary.to_pylist() for chunk in images[1].chunks]
    text_array([text for texts in known for text in texts], n=len(table))
    hashes = text_array(images[1].to_pylist())
    return Content(manifest, labelings, images[0].to_numpy(), hashes)


def _check_compression(metadata: Any) -> None:
    """Refuse what `_write_parquet` does not write: others pack gigabytes into some kilobytes."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    found = {group.column(i).compression for group in groups for i in range(group.num_columns)}
    if not found <= {"SNAPPY", "UNCOMPRESSED"}:
        raise ValueError(f"it is compressed by {', '.join(sorted(found))}, and may be by SNAPPY")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SettingError(
            "the format parquet must have the package pyarrow, which is not installed; "
            "install it with pip install 'taskdisc[parquet]', or take another format."
        ) from error
    return pyarrow, pyarrow.parquet


def _write_torch(path: Path, content: Content) -> None:
    import torch

    file = io.BytesIO()
    torch.save(
        {
            "manifest": json.dumps(content.manifest, allow_nan=False),
            "labelings": torch.tensor(content.labelings),
            "indices": torch.tensor(content.indices),
            "hashes": json.dumps(content.hashes.tolist()),
        },
        file,
    )
    write_atomic(path, file.getvalue())


def _read_torch(path: Path) -> Content:
    import torch

    from taskdisc.tensors import load_tensors

    try:
        found = load_tensors(path)
    except ValueError as error:  # PyTorch's own words recommend to unpickle what it refuses
        raise ValueError("it cannot be read as tensors and text") from error
    kinds = {"manifest": str, "labelings": torch.Tensor, "indices": torch.Tensor, "hashes": str}
    if not isinstance(found, Mapping) or any(
        not isinstance(found.get(name), kind) for name, kind in kinds.items()
    ):
        raise ValueError(f"it must hold {', '.join(kinds)}")
    hashes = text_array(parse_json(found["hashes"]))
    labelings, indices = found["labelings"].numpy(), found["indices"].numpy()
    return Content(parse_manifest(path, found["manifest"]), labelings, indices, hashes)


FORMATS: dict[str, Format] = {
    "npz": Format(".npz", _write_npz, _read_npz),
    "csv": Format(".csv", _write_csv, _read_csv),
    "parquet": Format(".parquet", _write_parquet, _read_parquet),
    "torch": Format(".pt", _write_torch, _read_torch),
}
"""All formats, by name; `npz` is the default."""
