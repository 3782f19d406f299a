"""Small image files in the layouts that sources read."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, side: int = 8) -> np.ndarray:
    """A random colour image, uint8 [side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(image: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def class_files(classes: dict[str, int], side: int = 8, head: str = "") -> dict[str, bytes]:
    """``<head><class>/<number>.png`` for each class and its count."""
    names = [(name, i) for name, count in classes.items() for i in range(count)]
    return {f"{head}{name}/{i}.png": encoded(pixels(k, side)) for k, (name, i) in enumerate(names)}


def tiny_imagenet_files(head: str = "tiny-imagenet-200/") -> dict[str, bytes]:
    """Three classes, two of them of one name; 2 train and 1 val image each; one is grey."""
    wnids = ["n03", "n01", "n02"]
    words = {"n01": "crane, a bird", "n02": "crane", "n03": "teapot, pot", "n99": "not used"}
    files = {
        "wnids.txt": "\n".join(wnids).encode(),
        "words.txt": "\n".join(f"{wnid}\t{word}" for wnid, word in words.items()).encode(),
    }
    lines = []
    for k, wnid in enumerate(wnids):
        for i in range(2):
            image = pixels(10 * k + i, 64)
            form = image[..., 0] if (k, i) == (0, 0) else image
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = encoded(form, "JPEG")
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"n03_0.JPEG\t0\t0\t10\t10\n"
        files[f"val/images/val_{2 - k}.JPEG"] = encoded(pixels(100 + k, 64), "JPEG")
        lines.append(f"val_{2 - k}.JPEG\t{wnid}\t0\t0\t10\t10\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    return {head + name: content for name, content in files.items()}
