"""Files below a folder or inside a .zip, seen alike and read where they lie."""

import os
import re
import stat
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from taskdisc.archives import check_archive, one_line, read_member
from taskdisc.errors import ImageSetError, shown

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# A photograph has a few MB; a member that claims more than this is a mistake or an attack.
_MAX_MEMBER_BYTES = 1 << 28
_DEEPEST = 64
"""Folders within folders."""

# Ends of lines, escapes of terminals, and bytes that are no text (surrogates stand for them).
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Entry:
    """One file: its size and a stamp that changes with its content.

    The stamp is the CRC-32 inside a .zip and the modification time [ns] in a folder.
    """

    n_bytes: int
    stamp: int


class Tree(ABC):
    """The visible files below `location`.

    Attributes:
        location: the folder or the .zip.
        files: path relative to `location`, with "/" between its parts -> entry.
        folders: relative paths of all folders, empty ones too.
    """

    location: Path
    files: dict[str, Entry]
    folders: set[str]

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The content of one of `files`; safe to call from several threads."""

    @abstractmethod
    def shown(self, path: str) -> str:
        """How error sentences name one of `files`."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What, beside the entries, tells this tree's content from another's."""

    def _check_size(self, path: str, n_bytes: int) -> None:
        if n_bytes > _MAX_MEMBER_BYTES:
            raise ImageSetError(
                f"'{self.shown(path)}' must have at most {_MAX_MEMBER_BYTES:,} bytes, "
                f"got {n_bytes:,}{' or more' if n_bytes == _MAX_MEMBER_BYTES + 1 else ''}."
            )

    def images(self, folder: str = "") -> list[str]:
        """Paths of the image files below `folder`, at any depth, sorted."""
        head = f"{folder}/" if folder else ""
        return sorted(p for p in self.files if p.startswith(head) and is_image(p))

    def children(self, folder: str = "") -> list[str]:
        """Names of the folders directly in `folder`, sorted."""
        head = f"{folder}/" if folder else ""
        names = (p[len(head) :] for p in self.folders if p.startswith(head))
        return sorted(name for name in names if name and "/" not in name)

    def text(self, path: str) -> str:
        """The content of a text file, UTF-8.

        Raises:
            ImageSetError: it is missing or no UTF-8 text.
        """
        if path not in self.files:
            raise ImageSetError(f"'{self.shown(path)}' must be a text file, got nothing there.")
        try:
            return self.read(path).decode()
        except UnicodeDecodeError as error:
            raise ImageSetError(f"'{self.shown(path)}' must be UTF-8 text: {error}.") from error


@contextmanager
def open_tree(location: Path) -> Iterator[Tree]:
    """The files of a folder or a .zip.

    Raises:
        ImageSetError: neither a folder nor a .zip, unreadable, or a .zip with an unsafe path.
    """
    if location.is_dir():
        yield _Folder(location)
        return
    if not location.exists():
        raise ImageSetError(f"`root` must be a folder or a .zip, got '{location}': it is missing.")
    try:
        archive = zipfile.ZipFile(location)
        check_archive(location, archive.infolist())
    except Exception as error:  # a damaged list of members raises almost anything
        arrays = location.suffix in (".npy", ".npz")
        cure = "; arrays have a source of their own, 'arrays'" if arrays else ""
        raise ImageSetError(
            f"`root` must be a folder or a .zip, got '{location}': {_plain(error)}{cure}."
        ) from error
    with archive:
        yield _Zip(location, archive)


def is_image(path: str) -> bool:
    """Whether the name ends like an image's; other files among the images are ignored."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


class _Folder(Tree):
    def __init__(self, location: Path) -> None:
        self.location = location
        self.files = {}
        self.folders = set()
        try:
            self._scan(location, "", set())
        except OSError as error:
            raise ImageSetError(f"'{location}' cannot be listed: {_plain(error)}.") from error

    def _scan(self, folder: Path, head: str, above: set[tuple[int, int]]) -> None:
        # Linked folders count, as users link their data; one that holds itself would never end.
        status = folder.stat()
        own = (status.st_dev, status.st_ino)
        if own in above:
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                path = head + entry.name
                if _hidden(path):
                    continue
                if entry.is_dir():
                    _check_path(self.location, path, path.split("/"))
                    self.folders.add(path)
                    self._scan(Path(entry.path), f"{path}/", above | {own})
                elif entry.is_file():
                    if is_image(path):
                        _check_path(self.location, path, [])
                    status = entry.stat()
                    self.files[path] = Entry(status.st_size, status.st_mtime_ns)

    def read(self, path: str) -> bytes:
        try:
            with (self.location / path).open("rb") as file:
                content = file.read(_MAX_MEMBER_BYTES + 1)
        except OSError as error:
            raise ImageSetError(f"'{self.shown(path)}' cannot be read: {_plain(error)}.") from error
        self._check_size(path, len(content))
        return content

    def shown(self, path: str) -> str:
        return str(self.location / path)

    @property
    def identity(self) -> str:
        # Equal names, sizes and times do not make equal files: the place belongs to the identity.
        return str(self.location.resolve())


class _Zip(Tree):
    def __init__(self, location: Path, archive: zipfile.ZipFile) -> None:
        self.location = location
        self.files = {}
        self.folders = set()
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            path = member.filename.replace("\\", "/")
            parts = path.rstrip("/").split("/")
            if path.startswith("/") or ".." in parts or ":" in parts[0]:
                raise ImageSetError(
                    f"'{location}' must hold only relative paths without '..', "
                    f"got the member {shown(member.filename)}; pack it anew."
                )
            # Links inside an archive would be read as images; nobody packs sets that way.
            if _hidden(path) or stat.S_ISLNK(member.external_attr >> 16):
                continue
            is_folder = member.is_dir() or path.endswith("/")
            if is_folder or is_image(path):
                _check_path(location, path, parts)
            if path in self.files:
                raise ImageSetError(
                    f"'{location}' must hold every file once, got {shown(path)} twice; "
                    "pack it anew."
                )
            if is_folder:
                folders = parts
            else:
                folders = parts[:-1]
                self.files[path] = Entry(member.file_size, member.CRC)
                self._members[path] = member
            # An archive need not list its folders; they follow from the paths.
            while folders and (name := "/".join(folders)) not in self.folders:
                self.folders.add(name)
                folders = folders[:-1]

    def read(self, path: str) -> bytes:
        member = self._members[path]
        self._check_size(path, member.file_size)
        try:
            return read_member(self._archive, member)
        except Exception as error:  # torn, encrypted, of an unknown version, …
            raise ImageSetError(f"'{self.shown(path)}' cannot be read: {_plain(error)}.") from error

    def shown(self, path: str) -> str:
        return f"{self.location}!{path}"

    @property
    def identity(self) -> str:
        # The CRC of each member says all: the same archive elsewhere is the same images.
        return "zip"


def _check_path(location: Path, path: str, parts: list[str]) -> None:
    """Refuse a path that no sentence, page or terminal can show, and folders without end."""
    if _UNSHOWABLE.search(path) or len(parts) > _DEEPEST:
        raise ImageSetError(
            f"'{location}' must hold folders and images whose names are text, at most {_DEEPEST} "
            f"folders within each other, got {shown(path)}; rename or remove it."
        )


def _hidden(path: str) -> bool:
    parts = path.rstrip("/").split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _plain(error: Exception) -> str:
    """The words of an error without errno and path, which the sentence names already."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return words.rstrip(".").lower() or type(error).__name__
