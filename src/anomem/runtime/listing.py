"""Image files below a folder or in a zip, with files left out and the reasons."""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.MpoImagePlugin import MpoImageFile

from anomem.errors import AnomemWarning, ImageError, InputError
from anomem.runtime import _pillow
from anomem.runtime.files import exists, is_file, is_folder, open_regular, read_head, scan
from anomem.runtime.images import HEATMAP, IMAGE_SUFFIXES
from anomem.runtime.limits import MAX_FOLDER_DEPTH, image_bytes
from anomem.runtime.masks import is_mask_folder, masks_beside, word_set

__all__ = ["Listing", "find_images", "found_in", "image_files", "list_folder", "warn_of_pages"]

_SYSTEM = word_set(
    "@eadir #recycle @recycle @recently-snapshot $recycle.bin __macosx recycler lost+found __pycache__ "
    "thumbs.db desktop.ini"
) | {"system volume information"}
_LITTER = frozenset({".ds_store", ".gitkeep", ".gitignore", "thumbs.db", "desktop.ini"})
_DOCUMENTS = word_set(
    ".txt .md .rst .json .jsonl .xml .csv .tsv .yaml .yml .toml .ini .cfg .log .html .htm .py .sh .ipynb"
)
_RAW = word_set(".cr2 .cr3 .nef .arw .dng .orf .rw2 .raf .pef .srw")
_UNREAD_SUFFIXES = {
    **dict.fromkeys(_RAW, "camera raw"),
    **dict.fromkeys((".heic", ".heif"), "HEIC"),
    ".avif": "AVIF",
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".j2c"), "JPEG 2000"),
    ".jxl": "JPEG XL",
    ".psd": "Photoshop",
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    ".tga": "TGA",
    ".ico": "icon",
    ".pfm": "PFM",
    ".pam": "PAM",
    **dict.fromkeys((".fits", ".fit"), "FITS"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "video"),
    ".pdf": "PDF",
}
_UNREAD_STARTS = (
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"%PDF", "PDF"),
    (b"\x1aE\xdf\xa3", "video"),
)
_PAGED = frozenset({"TIFF", "GIF", "WEBP", "PNG", "MPO"})
_PAGED_SUFFIXES = frozenset({".tif", ".tiff", ".gif", ".webp", ".mpo"})
_NAMED = 5


@dataclass(frozen=True)
class Listing:
    """Files below a folder, by kind.

    Parameters
    ----------
    folder : Path
        Folder.
    images : tuple of Path, sorted
        Image files, by suffix or by content.
    masks : tuple of Path, sorted
        Masks, by their folder, their name or beside their image.
    hidden : tuple of Path
        Hidden entries and those of operating systems and storage devices.
    unread : tuple of (Path, str)
        Image files of formats that are not read, with the format.
    others : tuple of Path
        Files that are no images by their content.
    pages : tuple of (Path, int)
        Images of several pages or frames; only the first is read.
    heatmaps : tuple of Path
        Heatmaps drawn by anomem.
    """

    folder: Path
    images: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    unread: tuple[tuple[Path, str], ...] = ()
    others: tuple[Path, ...] = ()
    pages: tuple[tuple[Path, int], ...] = ()
    heatmaps: tuple[Path, ...] = ()

    def notes(self, *, masks: bool = True) -> tuple[str, ...]:
        """Return one line per kind of files left out; masks only on request."""
        lines = []
        if masks and self.masks:
            lines.append(f"{_count(len(self.masks), 'mask')} not read as images ({self._places(self.masks)})")
        if self.unread:
            named = _some(f"{self._relative(path)} ({kind})" for path, kind in self.unread)
            lines.append(f"left out {_count(len(self.unread), 'file')}: {named}; convert to PNG, TIFF or JPEG")
        unknown = [path for path in self.others if path.suffix.lower() not in _DOCUMENTS]
        if unknown:
            named = _some(self._relative(path) for path in unknown)
            lines.append(f"left out {_count(len(unknown), 'file')}, not images by content: {named}")
        if self.heatmaps:
            lines.append(f"left out {_count(len(self.heatmaps), 'heatmap')} ({self._places(self.heatmaps)})")
        hidden = [path for path in self.hidden if path.name.casefold() not in _LITTER]
        if hidden:
            named = _some(self._relative(path) for path in hidden)
            lines.append(
                f"left out {len(hidden)} hidden or system {'entry' if len(hidden) == 1 else 'entries'}: {named}"
            )
        if self.pages:
            lines.append(page_note((self._relative(path), n) for path, n in self.pages))
        return tuple(lines)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _places(self, paths: Iterable[Path]) -> str:
        return _some(f"{place}: {n}" for place, n in Counter(self._relative(p.parent) for p in paths).items())


def list_folder(folder: str | Path, *, images_in: str | None = None) -> Listing:
    """List the files below a folder by kind.

    Parameters
    ----------
    folder : str or Path
        Folder, zip or folder inside a zip, searched recursively. Links to folders are followed, except to a folder
        around them.
    images_in : str, optional
        Name of folders that contain images despite a mask folder's name.

    Returns
    -------
    Listing
        Files, with paths that begin with ``folder``.

    Raises
    ------
    InputError
        ``folder``, or one inside it, is missing, not a folder or not readable; or as for `Archive.check`.
    """
    root = Path(folder)
    by_kind: dict[str, list[Path]] = defaultdict(list)
    unread, pages = [], []
    for kind, path in sorted(_walk(root, (), False, (images_in or "").casefold()), key=lambda entry: entry[1]):
        if kind in ("image", "mask", "hidden", "other"):
            by_kind[kind].append(path)
        else:
            unread.append((path, kind))
    headers = {path: _header(path) for path in by_kind["image"]}
    heatmaps = [path for path, header in headers.items() if header.title == HEATMAP]
    pictures = [path for path in by_kind["image"] if path not in set(heatmaps)]
    beside = masks_beside(pictures)
    images = [path for path in pictures if path not in beside]
    pages = [(path, headers[path].pages) for path in images if headers[path].pages > 1]
    return Listing(
        root,
        tuple(images),
        tuple(sorted([*by_kind["mask"], *beside])),
        tuple(by_kind["hidden"]),
        tuple(unread),
        tuple(by_kind["other"]),
        tuple(pages),
        tuple(heatmaps),
    )


def find_images(folder: str | Path) -> list[Path]:
    """List the image files below a folder, sorted; see `list_folder` for parameters and errors."""
    return list(list_folder(folder).images)


def image_files(path: str | Path, *, among: bool) -> Sequence[str | Path]:
    """List the image files of a path: the file itself, or all below a folder.

    Parameters
    ----------
    path : str or Path
    among : bool
        True for one of several paths; the file need not exist then.

    Raises
    ------
    InputError
        Folder without images, or missing path.

    Warns
    -----
    AnomemWarning
        Files were left out of a folder; one line for all.
    """
    place = Path(path)
    if among and place.suffix.lower() in IMAGE_SUFFIXES:
        return (path,)  # no disk access, since there may be very many
    if is_folder(place):
        listing = list_folder(place)
        notes = "; ".join(listing.notes())
        if not listing.images:
            raise InputError(f"{place}: 0 images, found {notes or found_in(place)}; name a folder of images")
        if notes:
            warnings.warn(f"{place}: {notes}", AnomemWarning, stacklevel=5)
        return listing.images
    if not among and not exists(place):
        raise InputError(f"{place}: no such file or folder; check the path")
    return (path,)


def found_in(folder: Path) -> str:
    """Return a short description of a folder's contents."""
    try:
        entries = sorted((name, inside) for name, inside in scan(folder) if not _is_hidden(name))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; name a readable folder") from error
    folders = [name for name, inside in entries if inside]
    suffixes = Counter(Path(name).suffix.lower() or name for name, inside in entries if not inside)
    parts = []
    if folders:
        parts.append(f"{_count(len(folders), 'folder')} ({_some(folders)})")
    if suffixes:
        shown = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(_NAMED))
        parts.append(f"{_count(suffixes.total(), 'file')} ({shown})")
    return " and ".join(parts) or "nothing"


@dataclass(frozen=True)
class _Header:
    """Facts of an image file: number of pages or frames, and title of a PNG."""

    pages: int = 1
    title: str = ""


def _header(path: Path) -> _Header:
    """Read the header of an image file; one page without a title if it cannot be opened."""
    try:
        kind = _pillow.check_kind(read_head(path, 16), path.name)
        kind = MpoImageFile if path.suffix.lower() == ".mpo" else kind
        if kind.format not in _PAGED:
            return _Header()
        with open_regular(path, path.name, sys.maxsize if is_file(path) else image_bytes()) as stream:
            image = kind(stream, path.name)
            return _Header(int(getattr(image, "n_frames", 1)), str(image.info.get("Title", "")))
    except Exception:  # noqa: BLE001 - decoders raise nearly everything on damaged files
        return _Header()


def warn_of_pages(paths: Iterable[str | Path], *, by_suffix: bool = False) -> None:
    """Warn of unread pages and frames in files given by name; `by_suffix` leaves other files untouched."""
    chosen = [path for path in map(Path, paths) if not by_suffix or path.suffix.lower() in _PAGED_SUFFIXES]
    pages = [(str(path), n) for path in chosen if is_file(path) and (n := _header(path).pages) > 1]
    if pages:
        warnings.warn(page_note(pages), AnomemWarning, stacklevel=4)


def page_note(pages: Iterable[tuple[str, int]]) -> str:
    """Return a note on pages and frames that are not read."""
    named = [f"{name} ({n - 1:,} more)" for name, n in pages]
    return f"only the first page or frame is read of {_some(named)}; save each as one file"


def _walk(folder: Path, around: tuple[str, ...], masks: bool, images_in: str) -> Iterator[tuple[str, Path]]:
    """Yield each file with its kind: image, mask, hidden, other, or the name of an unsupported format."""
    place = os.path.realpath(folder)
    if place in around:  # a link to a folder around it
        return
    if len(around) > MAX_FOLDER_DEPTH:
        top = folder.parents[MAX_FOLDER_DEPTH]
        raise InputError(f"{top}: more than {MAX_FOLDER_DEPTH} folders inside one another; move the images further up")
    try:
        entries = scan(folder)
    except NotADirectoryError as error:
        raise InputError(f"{folder}: is a file; name a folder of images") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{folder}: {reason}; name a readable folder") from error
    folders = [name for name, is_below in entries if is_below]
    for name, is_below in entries:
        path = folder / name
        if _is_hidden(name):
            yield "hidden", path
        elif is_below:
            inside = masks or (name.casefold() != images_in and is_mask_folder(name, folders))
            yield from _walk(path, (*around, place), inside, images_in)
        else:
            kind = _kind(path)
            yield "mask" if masks and kind == "image" else kind, path


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEM or name.casefold().startswith(".trash")


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in _UNREAD_SUFFIXES:
        return _UNREAD_SUFFIXES[suffix]
    try:
        head = read_head(path, 132)
    except (OSError, ImageError) as error:
        return getattr(error, "strerror", None) or "cannot be read"
    return _kind_by_content(head, path.name)


def _kind_by_content(head: bytes, name: str) -> str:
    for start, kind in _UNREAD_STARTS:
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return {b"avif": "AVIF", b"avis": "AVIF"}.get(brand, "HEIC" if brand[:2] in (b"he", b"mi", b"ms") else "video")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video"
    if head[128:132] == b"DICM":
        return "DICOM"
    # Texts may begin with the same letters: check the following bytes.
    if head.startswith(b"BM") and head[6:10] != b"\0\0\0\0":
        return "other"
    if head[:1] == b"P" and not (head[1:2] in b"456" and head[2:3] in b"\n\r\t #"):
        return "other"
    try:
        _pillow.check_kind(head[:16], name)
    except ImageError:
        return "other"
    return "image"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _some(names: Iterable[str]) -> str:
    """Return the first few names, joined."""
    listed = list(names)
    more = ", ..." if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
