"""Writing files so that a reader never sees half of one, whatever kills the writer."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.errors import SettingError, shown


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` through a temporary file in the same folder, synced, then renamed.

    Raises:
        OSError: the folder is missing, read-only or full; `path` is then as it was before.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; results are as readable as any other file of the user's.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed `.npz` that loads without pickle, atomically.

    Raises:
        ValueError: an array of objects.
        OSError: as `write_atomic`.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"array '{name}' holds objects, which only pickle could store.")
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_atomic(path, content.getvalue())


def csv_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines as CSV below their names; a line that lacks some of them has nothing there.

    Texts that a spreadsheet would take for formulas have an apostrophe before them: OWASP, "CSV
    Injection". Numbers stay as they are.
    """
    text = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_no_formula, names))
    writer.writerows([_no_formula(line.get(name, "")) for name in names] for line in lines)
    return text.getvalue()


def _no_formula(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    mark = "'" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else ""
    return mark + cell.replace("\r", " ")  # which ends a line, and is not quoted before Python 3.13


def absolute(setting: str, path: str) -> str:
    """A path that holds from any folder, for a run that is resumed from another one.

    Raises:
        SettingError: no path: the home of a user who does not exist, or a zero within.
    """
    try:
        return str(Path(path).expanduser().resolve())
    except (RuntimeError, ValueError, OSError) as error:
        raise SettingError(
            f"`{setting}` must be the path of a file or folder, got {shown(path)} "
            f"({str(error).rstrip('.').lower()}); write it in full."
        ) from error


def _umask() -> int:
    # The umask can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
