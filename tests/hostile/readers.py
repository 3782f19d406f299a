"""Every reader of the program, as data: a file that it takes, and what a right answer is."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawn_faces import draw_faces
from image_files import class_files, encoded, pixels, tiny_imagenet_files, write_tree, write_zip
from run_files import write_finished

from taskdisc.classifiers import load, read_state
from taskdisc.config import SearchSettings, dump_settings, read_settings, settings_from
from taskdisc.discovery.export import KEEP_SCHEMA, export_tasks, read_keep
from taskdisc.discovery.folder import open_folder, read_result
from taskdisc.discovery.run import load_selected, run_search
from taskdisc.discovery.tasks import Tasks, check_made_for, load_tasks, write_tasks
from taskdisc.files import write_npz
from taskdisc.folder import check_images
from taskdisc.images import ImageSet, as_image_set, load_images
from taskdisc.images.cache import cached
from taskdisc.images.contact_sheet import class_sheet, summary
from taskdisc.labelings import key, read_labelings
from taskdisc.listing import list_runs
from taskdisc.mtl.train import check_checkpoint
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.report.page import write_report
from taskdisc.studies import STUDIES
from taskdisc.studies.load_network import load_network
from taskdisc.studies.run import open_study, progress_of, run_study, write_study
from taskdisc.taskness.features import features
from taskdisc.taskness.kernels import Precomputed

N = 10
"""Images of the sets here."""


@dataclass(frozen=True)
class Reader:
    """One way into the program.

    Attributes:
        write: Makes a folder with an intact file in it, and what that needs beside it; gives the
            file, which is the one to be damaged.
        read: Reads the file.
        right: Whether an answer can be a right one.
        form: What the file is: a key of `corpus.FORMS`, by which it is damaged.
        slow: Whether one reading takes above a tenth of a second, so that few are tried.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    right: Callable[[Any], bool]
    form: str
    slow: bool = False


def images() -> ImageSet:
    """Ten colour images of 8 x 8 pixels, of two classes."""
    found = as_image_set(np.stack([pixels(number) for number in range(N)]))
    return ImageSet("array", found.images, {"kind": np.arange(N) % 2}, {"kind": ["even", "odd"]})


def _written(name: str, content: Callable[[], bytes | str]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        data = content()
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


# Settings


def _settings(kind: Any, **values: Any) -> str:
    return dump_settings(settings_from(kind, values))


def _kind(name: str) -> Any:
    return STUDIES[name].settings


MTL: dict[str, Any] = {
    "images": {"n_images": 40, "size": 16},
    "tasks": {"digit": {"kind": "classification", "of": "digit"}},
    "common": {
        "backbone": {"name": "convnet", "width": 4},
        "training": {"epochs": 1, "batch": 20, "lr": 0.01},
    },
    "rows": {"equal": {}},
    "seeds": 1,
}


def _is_settings(found: Any) -> bool:
    # What is read must be writable, or the run that it starts could not be made.
    return bool(dump_settings(found).encode())


def _set(path: Path) -> Any:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return read_settings(SearchSettings, None, [f"closed_form={text}"])


# Run folders


def _run(file: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        return write_finished(folder / "run") / file

    return write


def _report(path: Path) -> list[str]:
    page = write_report(path.parent)
    return [file.read_text(encoding="utf-8") for file in (page, page.with_name("gallery.html"))]


def _is_page(found: Any) -> bool:
    return all(text.startswith("<!DOCTYPE html>") for text in found)


def _exported(path: Path) -> Tasks:
    out = path.parents[1] / "out.npz"
    export_tasks([path.parent], out, every=True)
    return load_tasks(out)


def _listed(path: Path) -> Any:
    return json.dumps(list_runs(path.parent.parent)).encode()


KEYS = {key(np.eye(N, dtype=np.uint8)[number]) for number in range(3)}


def _keep() -> str:
    tasks = [{"key": name, "name": f"a {name}", "keep": True} for name in sorted(KEYS)]
    return json.dumps({"schema": KEEP_SCHEMA, "run": "run", "images": "c0ffee", "tasks": tasks})


# Tasks and labelings


def _tasks(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        tasks = Tasks(
            labelings=rng.integers(-1, 2, (2, N)).astype(np.int8),
            indices=images().indices,
            hashes=np.array(images().hashes()),
            taskness=np.array([0.5, 0.25]),
            sem=np.array([0.1, np.nan]),
            p_adjusted=np.array([np.nan, 0.5]),
            names=np.array(["plain", '=1+1, "<&>"']),
        )
        path = folder / name
        write_tasks(path, tasks, made_by="a test", images={"source": "array"})
        return path

    return write


def _is_tasks(found: Tasks) -> bool:
    return found.labelings.shape == (len(found.names), len(found.hashes)) and bool(
        np.isin(found.labelings.astype(int), (-1, 0, 1)).all()
    )


def _labelings(folder: Path) -> Path:
    path = folder / "labels.npz"
    labelings = np.random.default_rng(0).integers(0, 2, (3, N)).astype(np.uint8)
    write_npz(path, {"labelings": labelings, "hashes": np.array(images().hashes())})
    return path


def _score(path: Path) -> np.ndarray:
    found = read_labelings(path)
    check_made_for(path, images())
    return found


def _is_labelings(found: np.ndarray) -> bool:
    return found.ndim == 2 and found.dtype == np.uint8 and bool((found <= 1).all())


# Images


def _loaded(source: str, root: Callable[[Path], Path] = lambda path: path, **kw: Any) -> Any:
    def read(path: Path) -> ImageSet:
        found = load_images(source, root=root(path), cache=False, **kw)
        json.dumps(summary(found)).encode()  # names are text that can be printed …
        class_sheet(found)  # … and drawn
        return found

    return read


def _is_images(found: ImageSet) -> bool:
    # Its own rules are checked where it is made.
    return len(found.hashes()) == len(found)


def _array(folder: Path) -> Path:
    path = folder / "images.npz"
    np.savez(path, images=images().images, kind=np.arange(N) % 2)
    return path


def _npy(name: str, array: Callable[[], np.ndarray]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / name, array())
        return folder / name

    return write


def _picture(form: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        root = write_tree(folder / "images", class_files({"cat": 1, "dog": 1}))
        path = root / "cat" / f"x.{form.lower()}"
        path.write_bytes(encoded(pixels(1, 16), form))
        return path

    return write


def _zip(files: Callable[[], dict[str, bytes]]) -> Callable[[Path], Path]:
    return lambda folder: write_zip(folder / "images.zip", files())


def _tiny(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        return write_tree(folder, tiny_imagenet_files("")) / name

    return write


def _faces(name: str) -> Callable[[Path], Path]:
    return lambda folder: draw_faces(folder, N) / "celeba" / name


def _packed_faces(folder: Path) -> Path:
    place = draw_faces(folder, N) / "celeba"
    loose = place / "img_align_celeba"
    files = {f"img_align_celeba/{file.name}": file.read_bytes() for file in loose.iterdir()}
    shutil.rmtree(loose)
    return write_zip(place / "img_align_celeba.zip", files)


def _cached(path: Path) -> np.ndarray:
    entry = path.parent
    return cached(entry.parent, entry.name, (N, 8, 8, 3), lambda: [images().images])


def _cache_entry(folder: Path) -> Path:
    cached(folder, "entry", (N, 8, 8, 3), lambda: [images().images])
    return folder / "entry" / "images.npy"


# Arrays and weights of the closed form and of backbones


def _features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)


def _is_finite(found: np.ndarray) -> bool:
    return bool(np.isfinite(found).all())


def _layer() -> torch.nn.Linear:
    return torch.nn.Linear(3, 2)


def _weights(folder: Path) -> Path:
    torch.save(_layer().state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def _old_weights(folder: Path) -> Path:
    file = folder / "weights.pth"
    torch.save(_layer().state_dict(), file, _use_new_zipfile_serialization=False)
    return file


def _with_weights(path: Path) -> list[torch.Tensor]:
    layer = _layer()
    load(layer, read_state(path, "`weights` must be a file of"), str(path), "a layer")
    return list(layer.parameters())


def _are_weights(found: list[torch.Tensor]) -> bool:
    return all(bool(values.isfinite().all()) for values in found)


# Studies and comparisons, whose folders take seconds to make: see `conftest.made`


def made(name: str, file: str) -> Callable[[Path], Path]:
    """A file in a copy of a folder that was made once."""

    def write(folder: Path) -> Path:
        copy = folder / name
        shutil.copytree(MADE[name], copy)
        return copy / file

    return write


MADE: dict[str, Path] = {}
"""Folders by name, once they are made."""


def _study(path: Path) -> list[str]:
    _listed(path)
    write_study(path.parent)
    return [(path.parent / "report.html").read_text(encoding="utf-8")]


def _progress(path: Path) -> Any:
    return progress_of(path.parent)


def made_settings(name: str) -> Reader:
    """The settings of a run that says by a digest which they are: intact, or refused."""

    def read(path: Path) -> bytes:
        write_study(path.parent)
        return path.read_bytes()

    def right(found: bytes) -> bool:
        return found == (MADE[name] / "config.yaml").read_bytes()

    return Reader(made(name, "config.yaml"), read, right, "yaml", slow=True)


def _resumed_search(path: Path) -> list[str]:
    """The pages of a run that goes on: in a copy, for it writes to all files of its folder."""
    copy = path.parents[1] / "resumed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path.parent, copy)
    folder, settings = open_folder(copy)
    try:
        found = load_selected(settings.images, Progress())
        check_images(copy, found)
        run_search(found, settings, Pool(1, "cpu"), folder=folder, progress=Progress())
    finally:
        folder.close()
    return _report(copy / path.name)


def _resumed_study(path: Path) -> list[str]:
    copy = path.parents[1] / "resumed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path.parent, copy)
    opened = open_study(copy, Progress())
    try:
        run_study(opened, Pool(1, "cpu"), Progress())
    finally:
        opened.close()
    return [(copy / "report.html").read_text(encoding="utf-8")]


CELL = "cells/0-equal-0"


def _network(path: Path) -> np.ndarray:
    loaded = load_network(path.parent)
    (outputs,) = loaded(loaded.images.images[:2]).values()
    return outputs.numpy()


def _always(found: Any) -> bool:
    return True


READERS: dict[str, Reader] = {
    "settings of a search": Reader(
        _written("s.yaml", lambda: _settings(SearchSettings)),
        partial(read_settings, SearchSettings),
        _is_settings,
        "yaml",
    ),
    "settings of a study": Reader(
        _written("s.yaml", lambda: _settings(_kind("size-ratio"))),
        lambda path: read_settings(_kind("size-ratio"), path),
        _is_settings,
        "yaml",
    ),
    "settings of a comparison": Reader(
        _written("s.yaml", lambda: _settings(_kind("mtl"), **MTL)),
        lambda path: read_settings(_kind("mtl"), path),
        _is_settings,
        "yaml",
    ),
    "--set": Reader(
        _written("value", lambda: "{kernel: linear, ridge: 3}"), _set, _is_settings, "yaml"
    ),
    "config.yaml, listed": Reader(_run("config.yaml"), _listed, _always, "yaml"),
    "environment.json, listed": Reader(_run("environment.json"), _listed, _always, "json"),
    "result.json, listed": Reader(_run("result.json"), _listed, _always, "json"),
    "result.json, read": Reader(
        _run("result.json"), lambda path: read_result(path.parent), _always, "json"
    ),
    "result.json, exported": Reader(_run("result.json"), _exported, _is_tasks, "json"),
    "tasks.npz, exported": Reader(_run("tasks.npz"), _exported, _is_tasks, "npz"),
    "trials.jsonl, listed": Reader(_run("trials.jsonl"), _listed, _always, "jsonl"),
    "config.yaml on the page": Reader(_run("config.yaml"), _report, _is_page, "yaml", slow=True),
    "environment.json on the page": Reader(
        _run("environment.json"), _report, _is_page, "json", slow=True
    ),
    "result.json on the page": Reader(_run("result.json"), _report, _is_page, "json", slow=True),
    "trials.jsonl on the page": Reader(_run("trials.jsonl"), _report, _is_page, "jsonl", slow=True),
    "confirm.jsonl on the page": Reader(
        _run("confirm.jsonl"), _report, _is_page, "jsonl", slow=True
    ),
    "pictures.npz on the page": Reader(_run("pictures.npz"), _report, _is_page, "npz", slow=True),
    "keep.json": Reader(
        _written("keep.json", _keep),
        lambda path: read_keep(path, "c0ffee", KEYS),
        lambda found: set(found) <= KEYS,
        "json",
    ),
    "tasks.npz of a run": Reader(_run("tasks.npz"), load_tasks, _is_tasks, "npz"),
    "tasks, .npz": Reader(_tasks("t.npz"), load_tasks, _is_tasks, "npz"),
    "tasks, .csv": Reader(_tasks("t.csv"), load_tasks, _is_tasks, "csv"),
    "tasks, .parquet": Reader(_tasks("t.parquet"), load_tasks, _is_tasks, "parquet"),
    "tasks, .pt": Reader(_tasks("t.pt"), load_tasks, _is_tasks, "torch"),
    "labelings, .csv": Reader(
        _written("l.csv", lambda: "a,b,c\n0,1,0\n1,1,0\n"), read_labelings, _is_labelings, "csv"
    ),
    "labelings, .npz": Reader(_labelings, _score, _is_labelings, "npz"),
    "images, .npz": Reader(_array, _loaded("arrays"), _is_images, "npz"),
    "images, .npy": Reader(
        _npy("i.npy", lambda: images().images), _loaded("arrays"), _is_images, "npy"
    ),
    **{
        f"an image, .{form.lower()}": Reader(
            _picture(form), _loaded("folder", lambda path: path.parents[1]), _is_images, "image"
        )
        for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
    },
    "images, .zip": Reader(
        _zip(lambda: class_files({"cat": 2, "dog": 1})), _loaded("folder"), _is_images, "zip"
    ),
    "cifar100, .zip": Reader(
        _zip(lambda: class_files({"bee": 2, "apple": 1}, 32, "train/")),
        _loaded("cifar100"),
        _is_images,
        "zip",
    ),
    "tiny-imagenet, .zip": Reader(
        _zip(tiny_imagenet_files), _loaded("tiny-imagenet"), _is_images, "zip"
    ),
    "wnids.txt": Reader(
        _tiny("wnids.txt"),
        _loaded("tiny-imagenet", lambda path: path.parent),
        _is_images,
        "text",
    ),
    "words.txt": Reader(
        _tiny("words.txt"),
        _loaded("tiny-imagenet", lambda path: path.parent),
        _is_images,
        "text",
    ),
    "val_annotations.txt": Reader(
        _tiny("val/val_annotations.txt"),
        _loaded("tiny-imagenet", lambda path: path.parents[1], split="val"),
        _is_images,
        "text",
    ),
    "list_attr_celeba.txt": Reader(
        _faces("list_attr_celeba.txt"),
        _loaded("celeba", lambda path: path.parents[1], split="all"),
        _is_images,
        "text",
    ),
    "list_eval_partition.txt": Reader(
        _faces("list_eval_partition.txt"),
        _loaded("celeba", lambda path: path.parents[1], split="test"),
        _is_images,
        "text",
    ),
    "img_align_celeba.zip": Reader(
        _packed_faces,
        _loaded("celeba", lambda path: path.parents[1], split="val"),
        _is_images,
        "zip",
    ),
    "cached images": Reader(
        _cache_entry, _cached, lambda found: found.shape == (N, 8, 8, 3), "npy"
    ),
    "features, .npy": Reader(
        _npy("f.npy", _features), lambda path: features(str(path), images()), _is_finite, "npy"
    ),
    "a kernel, .npy": Reader(
        _npy("k.npy", lambda: (f := _features()) @ f.T),
        lambda path: Precomputed.read(str(path), N).compare(np.arange(N), np.arange(N)),
        _is_finite,
        "npy",
    ),
    "weights, .pth": Reader(_weights, _with_weights, _are_weights, "torch"),
    "weights, .pth of an old PyTorch": Reader(_old_weights, _with_weights, _are_weights, "torch"),
    **{
        f"{name}, resumed": Reader(made("search", name), _resumed_search, _is_page, "jsonl", True)
        for name in ("trials.jsonl", "trained.jsonl", "confirm.jsonl")
    },
    "cells.jsonl of a study, resumed": Reader(
        made("noise", "cells.jsonl"), _resumed_study, _is_page, "jsonl", slow=True
    ),
    "cells.jsonl of a comparison, resumed": Reader(
        made("mtl", "cells.jsonl"), _resumed_study, _is_page, "jsonl", slow=True
    ),
    "config.yaml of a study": made_settings("noise"),
    "config.yaml of a comparison": made_settings("mtl"),
    "cells.jsonl of a study": Reader(
        made("noise", "cells.jsonl"), _study, _is_page, "jsonl", slow=True
    ),
    "cells.jsonl of a study, counted": Reader(
        made("noise", "cells.jsonl"), _progress, _always, "jsonl"
    ),
    "environment.json of a study": Reader(
        made("noise", "environment.json"), _study, _is_page, "json", slow=True
    ),
    "cells.jsonl of a comparison": Reader(
        made("mtl", "cells.jsonl"), _study, _is_page, "jsonl", slow=True
    ),
    "best.ckpt, its network": Reader(
        made("mtl", f"{CELL}/best.ckpt"), _network, _is_finite, "torch", slow=True
    ),
    "best.ckpt, its history": Reader(
        made("mtl", f"{CELL}/best.ckpt"),
        check_checkpoint,
        lambda found: isinstance(found["history"], list),
        "torch",
    ),
    "best.ckpt as weights": Reader(
        made("mtl", f"{CELL}/best.ckpt"),
        lambda path: list(read_state(path, "`weights` must be a file of").values()),
        _are_weights,
        "torch",
    ),
}
"""By the words that a failing test shows."""
