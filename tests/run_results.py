"""What two runs must have in common whose settings and seed are the same."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np


def timeless(value: Any) -> Any:
    """The same without what a clock said."""
    if isinstance(value, dict):
        return {
            name: timeless(item)
            for name, item in value.items()
            if "seconds" not in name and "[ms]" not in name
        }
    return [timeless(item) for item in value] if isinstance(value, list) else value


def results(folder: Path) -> dict[str, Any]:
    """What a run folder says, but for times: by file."""
    found: dict[str, Any] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix == ".jsonl":
            found[file.name] = [timeless(json.loads(t)) for t in file.read_text().splitlines()]
        elif file.suffix == ".json" and file.name != "environment.json":
            found[file.name] = timeless(json.loads(file.read_text()))
        elif file.suffix == ".npz":
            with np.load(file) as arrays:
                found[file.name] = {
                    name: (arrays[name].dtype.str, arrays[name].tolist()) for name in arrays.files
                }
        elif file.suffix == ".csv":
            found[file.name] = [
                timeless(row) for row in csv.DictReader(file.read_text().splitlines())
            ]
        elif file.suffix == ".md":
            rows = [line.strip("|").split("|") for line in file.read_text().splitlines()]
            kept = [i for i, name in enumerate(rows[0]) if not re.search(r"second|\[ms\]", name)]
            found[file.name] = [[row[i].strip() for i in kept] for row in (rows[0], *rows[2:])]
        elif file.name in ("config.yaml", "reading.txt"):
            found[file.name] = file.read_text()
        elif file.suffix in (".html", ".png"):
            found[file.name] = "is there"
    if "cells.jsonl" in found:  # cells come as workers end them
        found["cells.jsonl"].sort(key=lambda line: json.dumps(line["cell"]))
    return found
