"""Broken files, built from an intact one: a table of manglings for all files and for each form."""

import gzip
import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from canary import Canary, pickled

Mangle = Callable[[bytes, Path], bytes]
"""From the content of an intact file and the canary's file to a broken content."""

DEEP = 100_000
LAUGHS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    + "known: *j\n"
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


def _at(position: float, piece: bytes) -> Mangle:
    """Put something in, at a share of the length."""

    def mangle(content: bytes, canary: Path) -> bytes:
        at = int(position * len(content))
        return content[:at] + piece + content[at:]

    return mangle


def _flipped(position: float, bit: int) -> Mangle:
    def mangle(content: bytes, canary: Path) -> bytes:
        at = min(int(position * len(content)), len(content) - 1)
        return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]

    return mangle


def _is(piece: bytes) -> Mangle:
    return lambda content, canary: piece


@cache
def _zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    return file.getvalue()


ANY: dict[str, Mangle] = {
    "nothing": _is(b""),
    "a byte": lambda content, canary: content[:1],
    "half": lambda content, canary: content[: len(content) // 2],
    "all but a byte": lambda content, canary: content[:-1],
    "all but the first byte": lambda content, canary: content[1:],
    "twice": lambda content, canary: content * 2,
    "zeros": lambda content, canary: bytes(len(content)),
    "ones": lambda content, canary: b"\xff" * len(content),
    "noise": lambda content, canary: np.random.default_rng(0).bytes(1000),
    "reversed": lambda content, canary: content[::-1],
    **{f"a flip at {p:.0%}": _flipped(p, bit) for bit, p in enumerate((0, 0.1, 0.3, 0.6, 0.9, 1))},
    "byte order mark": _at(0, b"\xef\xbb\xbf"),
    "UTF-16": lambda content, canary: b"\xff\xfe" + content.decode("latin-1").encode("utf-16-le"),
    "CR LF": lambda content, canary: content.replace(b"\n", b"\r\n"),
    "CR": lambda content, canary: content.replace(b"\n", b"\r"),
    "NUL within": _at(0.5, b"\0"),
    "no UTF-8 within": _at(0.5, b"\xff\xfe\x80"),
    "a surrogate within": _at(0.5, b"\xed\xa0\x80"),
    "a long line": _at(0, b"a" * 2_000_000),
    "brackets": _is(b"[" * DEEP),
    "brackets within": _at(0.5, b"[" * DEEP),
    "braces": _is(b'{"a":' * DEEP),
    "a list of lists": _is(b"[" * 5000 + b"]" * 5000 + b"\n"),
    "a long number": _is(b"9" * 10_000 + b"\n"),
    "code": lambda content, canary: pickled(canary),
    "code of protocol 0": lambda content, canary: pickled(canary, 0),
    "code of protocol 5": lambda content, canary: pickled(canary, 5),
    "gzip": lambda content, canary: gzip.compress(content),
    "a gzip bomb": _is(gzip.compress(bytes(1 << 25))),
    "another zip": lambda content, canary: _zipped(content),
    "a zip bomb": _is(_zipped(bytes(1 << 25))),
    "a page": _is(b"<!DOCTYPE html><title>Not found</title>"),
    "an array": lambda content, canary: _npy(np.zeros(3)),
    "an array of code": lambda content, canary: _npy(np.array([Canary(canary)])),
}
"""Of every file."""


# Text with a tree of values: JSON, its lines, and YAML

ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 3, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf"),
    "", "x", "\0", "\x1b[2J", "\ud800", "../../x", "a" * 5000, "a\nb", "~nobody/x", "\0.npy",
    "<script>alert(1)</script>", [], {}, [[]], [None], {"x": 1}, [1e400] * 3, "1" * 3000,
)  # fmt: skip
"""Values where others were."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values within a value, itself among them."""
    yield path
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, name))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another at a path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """The value without what is at a path."""
    if len(path) == 1:
        copy = dict(value) if isinstance(value, dict) else list(value)
        del copy[path[0]]
        return copy
    return replaced(value, path[:1], without(value[path[0]], path[1:]))


def loaded(content: bytes, form: str) -> Any:
    """The values in a file of a form; of lines, a list of them."""
    if form == "yaml":
        return yaml.safe_load(content)
    if form == "jsonl":
        return [json.loads(line) for line in content.splitlines()]
    return json.loads(content)


def dumped(value: Any, form: str) -> bytes:
    """The content of a file that holds values."""
    if form == "yaml":
        # JSON is YAML, but for surrogates in pairs and some numbers; as people write it otherwise.
        try:
            return yaml.safe_dump(value, allow_unicode=False).encode()
        except (UnicodeEncodeError, yaml.YAMLError):
            return json.dumps(value).encode()
    if form == "jsonl":
        lines = value if isinstance(value, list) else [value]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()
    return json.dumps(value).encode()


def _every_value(form: str, new: Any) -> list[Mangle]:
    """Manglings that put a value in at every place in turn, as one each."""

    def at(number: int) -> Mangle:
        def mangle(content: bytes, canary: Path) -> bytes:
            value = loaded(content, form)
            paths = list(places(value))
            return dumped(replaced(value, paths[number % len(paths)], new), form)

        return mangle

    return [at(number) for number in (1, 5, 11, 23)]


def _each_match(pattern: bytes, new: bytes, most: int = 0) -> Mangle:
    return lambda content, canary: re.sub(pattern, new, content, count=most)


JSON: dict[str, Mangle] = {
    "a key twice": lambda content, canary: content.replace(b"{", b'{"schema": 7, "schema": 8, ', 1),
    "NaN": lambda content, canary: content.replace(b"0.5", b"NaN").replace(b"0.4", b"-Infinity"),
    "1e999": lambda content, canary: content.replace(b"0.5", b"1e999").replace(b"0.4", b"-1e999"),
    "a comment": _at(0, b"// hello\n"),
    "single quotes": lambda content, canary: content.replace(b'"', b"'"),
    "half a pair": lambda content, canary: content.replace(b'"', b'"\\ud800', 3),
    "vast numbers": _each_match(rb"\d\.\d+(e-\d+)?", b"1.7e308"),
    "no numbers but zero": _each_match(rb"\d\.\d+(e-\d+)?", b"0"),
    "wholes that are none": _each_match(rb"\b(\d+)([,}])", rb"\1.5\2"),
    "negative wholes": _each_match(rb" (\d+)([,}])", rb" -\1\2"),
    "shorter lists": _each_match(rb", [^][,]+\]", b"]"),
    "a shorter list": _each_match(rb", [^][,]+\]", b"]", 1),
    "no lists": _each_match(rb"\[[^][]*\]", b"[]"),
    "every other line": lambda content, canary: b"".join(content.splitlines(True)[::2]),
}

YAML: dict[str, Mangle] = {
    "a billion laughs": _is(LAUGHS.encode()),
    "a billion laughs, merged": _is(MERGED.encode()),
    "a list within itself": _is(b"known: &a [*a]\n"),
    "a mapping within itself": _is(b"images: &a {source: *a}\n"),
    "a key within itself": _is(b"&a ? *a : 1\n"),
    "code": _is(b"known: !!python/object/apply:os.system ['touch executed']\n"),
    "a name of Python": _is(b"known: !!python/name:os.system\n"),
    "an object of Python": _is(b"!!python/object:subprocess.Popen {args: [ls]}\n"),
    **{
        f"!!{tag}": _is(f"seed: !!{tag} {value}\n".encode())
        for tag, value in {
            "int": "''",
            "float": "''",
            "bool": "maybe",
            "timestamp": "soon",
            "binary": "'*'",
            "null": "x",
            "set": "{a, b}",
            "omap": "[a: 1]",
            "pairs": "[a: 1]",
            "str": "{}",
            "nothing": "x",
        }.items()
    },
    "keys that are no text": _is(b"1: 2\nnull: 3\n2001-01-01: x\n1.5: x\n"),
    "a list as key": _is(b"? [a, b]\n: 1\n"),
    "a mapping as key": _is(b"? {a: b}\n: 1\n"),
    "a date that is none": _is(b"seed: 2001-99-99\n"),
    "a huge number in hexadecimal": _is(b"seed: 0x" + b"f" * 10_000 + b"\n"),
    "a huge number": _is(b"seed: 1" + b"0" * 30 + b"\n"),
    "a number by sixties": _is(b"seed: 1" + b":59" * 4000 + b"\n"),
    "another document": _at(1, b"\n---\nseed: 1\n"),
    "tabs": lambda content, canary: content.replace(b"  ", b"\t"),
    "a long key": _is(b"a" * 100_000 + b": 1\n"),
    "many keys": _is("".join(f"k{i}: 1\n" for i in range(4_000)).encode()),
    "a directive": _at(0, b"%YAML 9.9\n---\n"),
    "nested in lines": _is("".join("  " * i + "a:\n" for i in range(400)).encode()),
    "a home of nobody": _is(b"images: {root: ~nobody/x}\nknown: [~nobody/y]\n"),
    "NUL in a path": _is(b'images: {root: "a\\0b"}\n'),
    "features of a home of nobody": _is(b"closed_form: {features: ~nobody/x.npy}\n"),
    "a kernel with NUL": _is(b'closed_form: {kernel: "a\\0.npy"}\n'),
    "weights of a home of nobody": _is(
        b"tasks: {d: {kind: binary, of: digit, positives: 1}}\n"
        b"rows: {a: {backbone: {name: convnet, weights: ~nobody/w.pth}}}\n"
    ),
    "auxiliaries of a home of nobody": _is(
        b"tasks: {d: {kind: binary, of: digit, positives: 1}}\nrows: {a: {aux: ~nobody/w}}\n"
    ),
    "auxiliaries with NUL": _is(
        b'tasks: {d: {kind: binary, of: digit, positives: 1}}\nrows: {a: {aux: "a\\0b"}}\n'
    ),
}


# Arrays of numpy's


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(text: str, data: bytes = bytes(64), version: int = 1) -> bytes:
    """A .npy with any text for a header."""
    raw = text.encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(raw))
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw + data


def _shape(shape: str, descr: str = "'|u1'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


HEADERS: dict[str, bytes] = {
    "a huge shape": header(_shape("(1000000000000,)")),
    "a shape beyond memory": header(_shape("(10000000000, 4)", "'<f8'")),
    "a shape that overflows": header(_shape(f"({2**62}, 8, 8, 3)")),
    "a shape beyond all numbers": header(_shape(f"({10**30}, 2)")),
    "a negative shape": header(_shape("(-1, 8, 8, 3)")),
    "two negative numbers": header(_shape("(-4, -4)")),
    "no shape": header(_shape("()")),
    "a shape of none": header(_shape("(0, 8, 8, 3)")),
    "a shape of truths": header(_shape("(True, True, True, True)")),
    "a shape of text": header(_shape("('a',)")),
    "a shape without end": header("{'descr': '|u1', 'fortran_order': False, 'shape': (1, "),
    "a header that calls": header(_shape("(exit(),)")),
    "a header of another Python": header(_shape("(10L, 4L)", "'<f8'") + "'''", version=1),
    "deep brackets": header("(" * 5000, version=2),
    "deep signs": header("-" * 9000 + "1", version=2),
    "a long header": header(" " * 1_000_000 + _shape("(4,)"), version=2),
    "an unknown kind": header(_shape("(4,)", "'nonsense'")),
    "a kind without size": header(_shape("(4,)", "'S0'")),
    "a vast kind": header(_shape("(4,)", "'V2147483647'")),
    "records": header(_shape("(4,)", "[('a', '<f4'), ('b', '<i8')]")),
    "a kind within itself": header(_shape("(4,)", "[('a', [('b', '<f4')], (1000, 1000, 1000))]")),
    "objects": header(_shape("(4,)", "'|O'")),
    "times": header(_shape("(4, 4)", "'<M8[s]'")),
    "text": header(_shape("(4, 4)", "'<U1'")),
    "another version": b"\x93NUMPY\x09\x00" + bytes(100),
}


ARRAYS: dict[str, Callable[[Path], np.ndarray]] = {
    "code": lambda canary: np.array([Canary(canary)], dtype=object),
    "NaN": lambda canary: np.full((10, 4), np.nan),
    "infinity": lambda canary: np.full((10, 10), np.inf),
    "vast numbers": lambda canary: np.random.default_rng(0).normal(size=(10, 10)) * 1e300,
    "tiny numbers": lambda canary: np.random.default_rng(0).normal(size=(10, 10)) * 1e-310,
    "long doubles": lambda canary: np.eye(10, dtype=np.longdouble) * np.longdouble("1e4000"),
    "halves": lambda canary: np.eye(10, dtype=np.float16) * 60000,
    "big-endian": lambda canary: np.random.default_rng(0).normal(size=(10, 4)).astype(">f8"),
    "column by column": lambda canary: np.asfortranarray(
        np.random.default_rng(0).normal(size=(10, 10))
    ),
    "truths": lambda canary: np.eye(10, dtype=bool),
    "complex": lambda canary: np.eye(10, dtype=complex),
    "whole numbers": lambda canary: np.arange(100).reshape(10, 10) - 50,
    "large whole numbers": lambda canary: np.full((10, 10), 2**63 + 1, dtype=np.uint64),
    "text": lambda canary: np.array(["a", "b"] * 5),
    "times": lambda canary: np.zeros(10, dtype="M8[s]"),
    "a scalar": lambda canary: np.array(1),
    "nothing": lambda canary: np.zeros((0, 8, 8, 3), dtype=np.uint8),
    "no columns": lambda canary: np.zeros((10, 0)),
    "many axes": lambda canary: np.zeros((10,) + (1,) * 40),
    "fewer": lambda canary: np.zeros((3, 8, 8, 3), dtype=np.uint8),
    "channels first": lambda canary: np.zeros((10, 3, 8, 8), dtype=np.uint8),
}

NPY: dict[str, Mangle] = {
    **{f"header: {name}": _is(content) for name, content in HEADERS.items()},
    **{
        f"array: {name}": (lambda content, canary, make=make: _npy(make(canary)))
        for name, make in ARRAYS.items()
    },
}


# Archives


def members(content: bytes) -> dict[str, bytes]:
    """The files in a .zip; of another file, itself."""
    if content[:2] != b"PK":
        return {"archive/data.pkl": content}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(
    files: list[tuple[str | zipfile.ZipInfo, bytes]], kind: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A .zip of files, whose names may be anything and stand there twice."""
    import warnings

    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", kind) as archive:
        warnings.simplefilter("ignore")  # of names that stand there twice
        for name, content in files:
            archive.writestr(name, content, kind)
    return file.getvalue()


def _with(*more: tuple[str, bytes]) -> Mangle:
    return lambda content, canary: packed([*members(content).items(), *more])


def _again(kind: int) -> Mangle:
    return lambda content, canary: packed(list(members(content).items()), kind)


def _each(change: Callable[[str, bytes], tuple[str, bytes]]) -> Mangle:
    return lambda content, canary: packed([change(*file) for file in members(content).items()])


def _link(content: bytes, canary: Path) -> bytes:
    link = zipfile.ZipInfo("cat/link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    return packed([*members(content).items(), (link, b"/etc/passwd")])


def _lying(content: bytes, canary: Path) -> bytes:
    """Every member says that it is 10 bytes, and is 1 GB."""
    files = members(content)
    bomb = packed([(name, bytes(1 << 25)) for name in list(files)[:2]])
    size = struct.pack("<I", 1 << 25)
    return bomb.replace(size, struct.pack("<I", 10))


def _claiming(content: bytes, canary: Path) -> bytes:
    """Every member says that it is nearly 4 GB."""
    kept = packed(list(members(content).items()))
    for file in members(content).values():
        if len(file) > 300:
            kept = kept.replace(struct.pack("<I", len(file)), struct.pack("<I", 0xFFFFFF00))
    return kept


def _overlapping(content: bytes, canary: Path) -> bytes:
    """A thousand names for one member of 64 MB."""
    name = next(iter(members(content)))
    one = packed([(name, bytes(1 << 25))])
    start = one.index(b"PK\x01\x02")
    end = one.index(b"PK\x05\x06")
    entry = one[start:end]
    entries = b"".join(
        entry.replace(name.encode(), f"{i:0{len(name)}}"[: len(name)].encode()) for i in range(1000)
    )
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1000, 1000, len(entries), start, 0)
    return one[:start] + entries + tail


def _in_bytes(old: bytes, new: bytes) -> Mangle:
    return lambda content, canary: content.replace(old, new)


def _utf8_name(content: bytes, canary: Path) -> bytes:
    """A name that says to be UTF-8, and is none."""
    made = packed([*members(content).items(), ("cat/äää.png", b"x")])
    return made.replace("äää".encode(), b"\xff\xff\xff\xff\xff\xff")


ZIP: dict[str, Mangle] = {
    "a path upwards": _with(("../evil.png", b"x")),
    "a path upwards within": _with(("cat/../../evil.png", b"x")),
    "an absolute path": _with(("/tmp/evil.png", b"x")),
    "a path of Windows": _with(("C:\\evil.png", b"x")),
    "a path upwards, of Windows": _with(("..\\evil.png", b"x")),
    "a link": _link,
    "every name twice": lambda content, canary: packed(
        [*members(content).items(), *((n, b"x") for n in members(content))]
    ),
    "a name of 60,000 folders": _with(("a/" * 30_000 + "x.png", b"x")),
    "names of many folders": _with(*(("/".join(f"{i}" * 500) + "/x.png", b"x") for i in range(9))),
    "a name of dots": _with(("./.png", b"x"), (".", b"x")),
    "a name with code": _with(("<script>alert(1)<!script>/x.png", b"x")),
    "a name with an escape": _with(("\x1b[2J/x.png", b"x")),
    "a name with a line end": _with(("a\nb/x.png", b"x")),
    "a name that is no UTF-8": _utf8_name,
    "bzip2": _again(zipfile.ZIP_BZIP2),
    "lzma": _again(zipfile.ZIP_LZMA),
    "torn lzma": lambda content, canary: packed(
        list(members(content).items()), zipfile.ZIP_LZMA
    ).replace(b"\x5d\x00\x00", b"\xff\xff\xff"),
    "an unknown compression": lambda content, canary: packed(
        list(members(content).items())
    ).replace(b"\x08\x00", b"\x63\x00"),
    "encrypted": lambda content, canary: packed(list(members(content).items())).replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
    ),
    "a later version": _in_bytes(b"PK\x01\x02\x14\x03\x14\x00", b"PK\x01\x02\x14\x03\xff\x00"),
    "members that lie": _lying,
    "members that claim": _claiming,
    "members one over the other": _overlapping,
    "members of nothing": _each(lambda name, data: (name, b"")),
    "members of code": lambda content, canary: packed(
        [(name, pickled(canary)) for name in members(content)]
    ),
    "members cut": _each(lambda name, data: (name, data[: len(data) // 2])),
    "members changed": _each(lambda name, data: (name, data[::-1])),
    "no members": lambda content, canary: packed([]),
    "members in capitals": _each(lambda name, data: (name.upper(), data)),
    "members that are folders": _each(lambda name, data: (name + "/", b"")),
    "a comment": lambda content, canary: content + b"PK\x05\x06" + bytes(18),
    "wrong offsets": lambda content, canary: content[10:],
    "bombs": _each(lambda name, data: (name, bytes(1 << 24))),
}


def _of_arrays(make: Callable[[str, bytes, Path], bytes]) -> Mangle:
    def mangle(content: bytes, canary: Path) -> bytes:
        return packed([(name, make(name, data, canary)) for name, data in members(content).items()])

    return mangle


def _one(position: int, make: Callable[[Path], bytes]) -> Mangle:
    """Another content for one member, by its place."""

    def mangle(content: bytes, canary: Path) -> bytes:
        files = members(content)
        chosen = list(files)[position % len(files)]
        return packed([(n, make(canary) if n == chosen else d) for n, d in files.items()])

    return mangle


def _array_bomb(content: bytes, canary: Path) -> bytes:
    """Ten times 64 MB of zeros, as one name each."""
    big = header(_shape(f"({1 << 25},)"), bytes(1 << 25))
    return packed([*members(content).items(), *((f"{n}.npy", big) for n in range(10))])


NPZ: dict[str, Mangle] = {
    **ZIP,
    **{
        f"arrays: {name}": _of_arrays(lambda n, d, canary, h=content: h)
        for name, content in HEADERS.items()
    },
    **{
        f"array {position}: {name}": _one(position, lambda canary, make=make: _npy(make(canary)))
        for name, make in ARRAYS.items()
        for position in (0, 1)
    },
    **{
        f"array {position}: header: {name}": _one(position, lambda canary, h=content: h)
        for name, content in HEADERS.items()
        for position in (0, 1)
    },
    "members that are no arrays": _each(lambda name, data: (name.removesuffix(".npy"), data)),
    "bombs of arrays": _array_bomb,
    "without its first": lambda content, canary: packed(list(members(content).items())[1:]),
    "without its last": lambda content, canary: packed(list(members(content).items())[:-1]),
}


# Images


def _png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    middle = b"".join(chunk(*c) for c in chunks)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + middle
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


@cache
def _bomb_png(side: int) -> bytes:
    import zlib

    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return _png(side, side, data)


def _jpeg(width: int, height: int) -> Mangle:
    def mangle(content: bytes, canary: Path) -> bytes:
        from PIL import Image

        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, "JPEG")
        made = file.getvalue()
        at = made.index(b"\xff\xc0") + 5
        return made[:at] + struct.pack(">HH", height, width) + made[at + 4 :]

    return mangle


def _text_bomb() -> bytes:
    import zlib

    body = b"Comment\0\0" + zlib.compress(bytes(1 << 25), 9)
    return _png(1, 1, zlib.compress(bytes(4)), (b"zTXt", body), (b"iCCP", b"x\0\0" + body[9:]))


IMAGE: dict[str, Mangle] = {
    "many pixels": lambda content, canary: _bomb_png(2_000),
    "a bomb of 10,000 x 10,000": lambda content, canary: _bomb_png(10_000),
    "a claim of 60,000 x 60,000": _is(_png(60_000, 60_000, b"")),
    "a claim of 2 thousand millions": _is(_png(2**31 - 1, 2**31 - 1, b"")),
    "a claim of 13,000 x 13,000": _is(_png(13_000, 13_000, b"")),
    "no pixels": _is(_png(0, 0, b"")),
    "one pixel by 80,000,000": _is(_png(80_000_000, 1, b"")),
    "text that unpacks": lambda content, canary: _text_bomb(),
    "a JPEG of 65,500 x 65,500": _jpeg(65_500, 65_500),
    "a program for a printer": _is(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
        b"(executed) (w) file closefile\nshowpage\n%%EOF\n"
    ),
    "a drawing of Windows": _is(b"\xd7\xcd\xc6\x9a" + bytes(200)),
    "an icon": _is(b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + bytes(200)),
    "a drawing": _is(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>'),
}


# Tables


def _csv_cells(new: bytes) -> Mangle:
    return lambda content, canary: content.replace(b"\n0,", b"\n" + new + b",").replace(
        b",1,", b"," + new + b","
    )


CSV: dict[str, Mangle] = {
    "formulas": _csv_cells(b'"=HYPERLINK(""http://x"")"'),
    "formulas of Excel": _csv_cells(b"=cmd|' /C calc'!A0"),
    "open quotes": _csv_cells(b'"'),
    "a cell of 1 MB": _csv_cells(b"1" * 1_000_000),
    "semicolons": lambda content, canary: content.replace(b",", b";"),
    "cells of nothing": _csv_cells(b""),
    "digits of another script": _csv_cells("١".encode()),
    "underscores": _csv_cells(b"1_0"),
    "NaN": _csv_cells(b"nan"),
    "infinity": _csv_cells(b"1e999"),
    "a long number": _csv_cells(b"9" * 6000),
    "ragged rows": lambda content, canary: content + b"1,1\n1\n",
    "one long cell among many": lambda content, canary: (
        content + b"0," + b"x" * 1_000_000 + b",1,0\n" + b"1,y,1,0\n" * 200_000
    ),
    "commas": _is(b"," * 1_000_000),
    "line ends": _is(b"\n" * 1_000_000),
    "many columns": _is(b"0," * 100_000 + b"1\n"),
    "a manifest of laughs": _is(b'# {"schema": 1, "tasks": ' + b"[" * DEEP),
}


# Parquet and PyTorch


def _parquet(change: Callable[[Any], Any]) -> Mangle:
    def mangle(content: bytes, canary: Path) -> bytes:
        from pyarrow import parquet

        table = parquet.read_table(io.BytesIO(content))
        file = io.BytesIO()
        parquet.write_table(change(table), file)
        return file.getvalue()

    return mangle


def _many_rows(table: Any) -> Any:
    """Twelve million rows in some kilobytes."""
    import pyarrow as pa

    n = 12_000_000
    columns = [
        pa.array(np.zeros(n, np.int64)),
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), pa.array(["x" * 16])),
        *[pa.array(np.zeros(n, np.int8))] * (table.num_columns - 2),
    ]
    plain = [c if i != 1 else c.dictionary_decode() for i, c in enumerate(columns)]
    return pa.table(plain, schema=table.schema)


def _one_long_text(content: bytes, canary: Path) -> bytes:
    """A million times one hash of half a million letters, in 37 kilobytes."""
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content))
    n = 1_000_000
    zeros = pa.array(np.zeros(n, np.int8))
    text = pa.DictionaryArray.from_arrays(zeros, pa.array(["x" * 500_000]))
    columns = [zeros.cast(pa.int64()), text, *[zeros] * (table.num_columns - 2)]
    names = table.schema.names
    schema = pa.schema([pa.field(k, c.type) for k, c in zip(names, columns, strict=True)])
    file = io.BytesIO()
    # Without Arrow's own schema, by which the column would not be one of text.
    with parquet.ParquetWriter(file, schema, store_schema=False) as writer:
        writer.write_table(pa.table(columns, schema=schema))
        writer.add_key_value_metadata({b"taskdisc": table.schema.metadata[b"taskdisc"]})
    return file.getvalue()


def _compressed(kind: str) -> Mangle:
    def mangle(content: bytes, canary: Path) -> bytes:
        from pyarrow import parquet

        file = io.BytesIO()
        parquet.write_table(parquet.read_table(io.BytesIO(content)), file, compression=kind)
        return file.getvalue()

    return mangle


PARQUET: dict[str, Mangle] = {
    "one long text for all": _one_long_text,
    **{f"compressed by {kind}": _compressed(kind) for kind in ("none", "gzip", "zstd", "brotli")},
    "without metadata": _parquet(lambda table: table.replace_schema_metadata(None)),
    "metadata of laughs": _parquet(
        lambda table: table.replace_schema_metadata({b"taskdisc": b"[" * DEEP})
    ),
    "metadata that is no text": _parquet(
        lambda table: table.replace_schema_metadata({b"taskdisc": b"\xff\xff"})
    ),
    "other columns": _parquet(lambda table: table.rename_columns(["a"] * table.num_columns)),
    "fewer columns": _parquet(lambda table: table.select([0, 1])),
    "no rows": _parquet(lambda table: table.slice(0, 0)),
    "other types": _parquet(
        lambda table: table.set_column(2, table.schema.names[2], table.column(1))
    ),
    "rows again": _parquet(lambda table: __import__("pyarrow").concat_tables([table, table])),
    "twelve million rows": _parquet(_many_rows),
}


class _Call:
    """Pickled, the call of a function with arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _saved(make: Callable[[Path], Any], old: bool = False) -> Mangle:
    def mangle(content: bytes, canary: Path) -> bytes:
        file = io.BytesIO()
        torch.save(make(canary), file, _use_new_zipfile_serialization=not old)
        return file.getvalue()

    return mangle


def _resaved(change: Callable[[Any], Any]) -> Mangle:
    def mangle(content: bytes, canary: Path) -> bytes:
        file = io.BytesIO()
        torch.save(change(torch.load(io.BytesIO(content), weights_only=True)), file)
        return file.getvalue()

    return mangle


def _tensors(change: Callable[[torch.Tensor], Any]) -> Mangle:
    """Something else for every tensor, at any depth."""

    def within(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return change(value)
        if isinstance(value, dict):
            return {name: within(inner) for name, inner in value.items()}
        return [within(inner) for inner in value] if isinstance(value, list) else value

    return _resaved(within)


def _pickle_in_zip(content: bytes, canary: Path) -> bytes:
    """Its own archive, with code for a pickle."""
    files = members(content) if content[:2] == b"PK" else {"x/data.pkl": b"", "x/version": b"3\n"}
    return packed(
        [(n, pickled(canary) if n.endswith(".pkl") else d) for n, d in files.items()],
        zipfile.ZIP_STORED,
    )


def _claims(code: bytes) -> Mangle:
    """A pickle that begins with a text, bytes or a number of 100 GB."""

    def mangle(content: bytes, canary: Path) -> bytes:
        claim = code + struct.pack("<Q", 10**11)
        if content[:2] != b"PK":
            return claim + content
        return packed(
            [(n, claim + d if n.endswith(".pkl") else d) for n, d in members(content).items()],
            zipfile.ZIP_STORED,
        )

    return mangle


def _laughs() -> dict[str, Any]:
    """Sixty levels of twice the same: 2 ** 60 values, in some hundred bytes."""
    value: dict[str, Any] = {"x": 1}
    for _ in range(60):
        value = {"a": value, "b": value}
    return value


def _itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


TORCH: dict[str, Mangle] = {
    "an object": _saved(lambda canary: {"weight": Canary(canary)}),
    "an object, old": _saved(lambda canary: {"weight": Canary(canary)}, old=True),
    "a pickle in its archive": _pickle_in_zip,
    "a network": _saved(lambda canary: torch.nn.Linear(3, 2)),
    "a function": _saved(lambda canary: {"weight": print}),
    "bytes of 100 GB": _saved(lambda canary: {"weight": _Call(bytearray, 10**11)}),
    "bytes of 3 GB": _saved(lambda canary: {"weight": _Call(bytearray, 3 * 10**9)}),
    "a tensor of 3 GB": _saved(lambda canary: {"weight": _Call(torch.FloatTensor, 8 * 10**8)}),
    "a storage of 3 GB": _saved(lambda canary: _Call(torch.UntypedStorage, 3 * 10**9)),
    **{
        f"a claim by {code!r}": _claims(code)
        for code in (
            *(pickle.BINUNICODE8, pickle.BINBYTES8, pickle.BYTEARRAY8, pickle.FRAME),
            *(pickle.BINUNICODE, pickle.BINBYTES, pickle.BINSTRING, pickle.LONG4),
        )
    },
    "a list": _saved(lambda canary: [torch.zeros(2)]),
    "nothing": _saved(lambda canary: {}),
    "numbers for keys": _saved(lambda canary: {0: torch.zeros(2, 3), 1: torch.zeros(2)}),
    "texts": _saved(lambda canary: {"weight": "x", "bias": "y"}),
    "nested": _saved(lambda canary: {"weight": {"weight": torch.zeros(2, 3)}}),
    "other shapes": _tensors(lambda value: torch.zeros(7, 7)),
    "NaN": _tensors(lambda value: torch.full(value.shape, float("nan"))),
    "complex": _tensors(lambda value: torch.ones(value.shape, dtype=torch.complex64) * 1j),
    "halves": _tensors(lambda value: value.to(torch.float16)),
    "truths": _tensors(lambda value: torch.ones(value.shape, dtype=torch.bool)),
    "sparse": _tensors(lambda value: value.to_sparse()),
    "without data": _tensors(lambda value: value.to("meta")),
    "repeated": _tensors(lambda value: torch.zeros(1).expand(10**6, 10**6)),
    "no dimensions": _tensors(lambda value: torch.tensor(1)),
    "texts for tensors": _tensors(lambda value: "x"),
    **{
        f"{name} in checkpoints": _saved(lambda canary, v=value: v)
        for name, value in {
            "nothing": {"taskdisc": {}},
            "a list": {"taskdisc": [], "state_dict": []},
            "no history": {"taskdisc": {"says": {}}, "state_dict": {}},
            "other histories": {"taskdisc": {"says": 1, "history": 2}, "state_dict": 3},
            "numbers for names": {
                "taskdisc": {"says": {}, "history": []},
                "state_dict": {1: torch.zeros(1)},
            },
        }.items()
    },
    "a billion laughs": _saved(lambda canary: {"taskdisc": {"says": _laughs()}}),
    "a list within itself": _saved(lambda canary: {"taskdisc": _itself()}),
}

FORMS: dict[str, dict[str, Mangle]] = {
    "yaml": YAML,
    "json": JSON,
    "jsonl": JSON,
    "csv": CSV,
    "text": CSV,
    "npz": NPZ,
    "npy": NPY,
    "zip": ZIP,
    "image": IMAGE,
    "parquet": PARQUET,
    "torch": {
        **TORCH,
        **{f"archive: {name}": mangle for name, mangle in ZIP.items()},
    },
}
"""By the form of a file; `ANY` comes on top."""

TREES = ("yaml", "json", "jsonl")
"""Forms whose values can be changed one by one."""

BOMBS = {
    *(name for name in ANY if "bomb" in name),
    *(f"{head}{name}" for head in ("", "archive: ") for name in (*ZIP, *NPZ) if "bomb" in name),
    *(f"{head}{name}" for head in ("", "archive: ") for name in (
        "members that lie", "members one over the other",
    )),
    "a bomb of 10,000 x 10,000", "twelve million rows",
}  # fmt: skip
"""Names of manglings that take long to make."""
