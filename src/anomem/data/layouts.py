"""Folders of images as datasets: MVTec style, ImageFolder style, flat."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from anomem.data.samples import Dataset, Layout, Sample, mask_note
from anomem.errors import InputError
from anomem.runtime.images import IMAGE_SUFFIXES, find_images
from anomem.types import ANOMALOUS, NORMAL, UNKNOWN

__all__ = ["found_in", "read_folder", "type_by_place"]

GOOD_WORDS = frozenset({"good", "normal", "ok"})
BAD_WORDS = frozenset({"anomalous", "anomaly", "anomalies", "abnormal", "bad", "defect", "defects", "defective", "ng"})
_TRAIN, _TEST, _VAL = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
_GROUND_TRUTH = "ground_truth"
_EXPECTED = (
    "expected train/good with test/<type> (MVTec), train/<class> (ImageFolder), "
    "a folder of normal images, or a CSV/Parquet table"
)


@dataclass(frozen=True)
class _Part:
    """The images of one folder: per class folder below it, and loose beside those."""

    folder: Path
    classes: Mapping[str, list[Path]]
    loose: list[Path]

    def __len__(self) -> int:
        return len(self.loose) + sum(map(len, self.classes.values()))

    def listing(self) -> str:
        return ", ".join(f"{name} ({len(paths):,})" for name, paths in self.classes.items())


def read_folder(root: Path, normal: str | None) -> Dataset:
    """Recognise the layout of a folder and list its images.

    Parameters
    ----------
    root : Path
        An existing folder.
    normal : str, optional
        The class folder that holds the normal images.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        No image, several datasets or several classes without ``normal``, an unknown ``normal``.
    """
    folders = _folders(root)
    train, test = _named(folders, _TRAIN), _named(folders, _TEST)
    if train or test:
        return _read_split(root, train, test or _named(folders, _VAL), normal)
    categories = [folder for folder in folders.values() if _is_dataset(folder)]
    if len(categories) > 1:
        names = ", ".join(folder.name for folder in categories)
        raise InputError(
            f"{root}: holds {len(categories)} datasets ({names}): name one of them, such as {categories[0]}"
        )
    part = _read_part(root)
    if categories and not part.loose and len(part.classes) <= 1:
        return read_folder(categories[0], normal)
    if not len(part):
        raise InputError(f"{root}: 0 images, found {found_in(root)}; {_EXPECTED}")
    told_apart = len(part.classes) > 1 and any(n.casefold() in GOOD_WORDS for n in part.classes)
    if part.classes and (normal is not None or not part.loose or told_apart):
        return _read_classes(root, part, normal)
    return _read_flat(root, part, normal)


def found_in(folder: Path) -> str:
    """Say in a few words what a folder holds."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}: name a readable folder") from error
    folders = [entry.name for entry in entries if entry.is_dir()]
    suffixes = Counter(entry.suffix.lower() or entry.name for entry in entries if entry.is_file())
    parts = []
    if folders:
        more = ", ..." if len(folders) > 5 else ""
        parts.append(f"{_number(len(folders), 'folder')} ({', '.join(folders[:5])}{more})")
    if suffixes:
        shown = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
        parts.append(f"{_number(suffixes.total(), 'file')} ({shown})")
    return " and ".join(parts) or "nothing"


def type_by_place(path: Path) -> str | None:
    """Name the kind of defect by an anomalous image's place in MVTec style, ``test/<type>/<image>``; else None.

    Examples
    --------
    >>> type_by_place(Path("tile/test/crack/001.png")), type_by_place(Path("crack/001.png"))
    ('crack', None)
    """
    folder = path.parent
    known = folder.parent.name.casefold() in _TEST and folder.name.casefold() not in GOOD_WORDS
    return folder.name if known else None


def _number(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _folders(root: Path) -> dict[str, Path]:
    """Visible folders of one folder by name, ``ground_truth`` left out."""
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise InputError(f"{root}: {error.strerror}: name a readable folder") from error
    return {
        entry.name: entry
        for entry in entries
        if not entry.name.startswith(".") and entry.name.casefold() != _GROUND_TRUTH and entry.is_dir()
    }


def _named(folders: Mapping[str, Path], names: Iterable[str]) -> Path | None:
    by_name = {name.casefold(): folder for name, folder in folders.items()}
    return next((by_name[name] for name in names if name in by_name), None)


def _is_dataset(folder: Path) -> bool:
    inside = _folders(folder)
    return _named(inside, _TRAIN) is not None or _named(inside, _TEST) is not None


def _read_part(folder: Path) -> _Part:
    found = {name: _images(inside) for name, inside in _folders(folder).items()}
    loose = sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )
    return _Part(folder, {name: paths for name, paths in found.items() if paths}, loose)


def _images(folder: Path) -> list[Path]:
    return [
        path
        for path in find_images(folder)
        if not any(part.casefold() == _GROUND_TRUTH for part in path.relative_to(folder).parts)
    ]


def _read_split(root: Path, train: Path | None, test: Path | None, normal: str | None) -> Dataset:
    to_train = _read_part(train) if train else _Part(root, {}, [])
    to_test = _read_part(test) if test else _Part(root, {}, [])
    if train and not len(to_train):
        raise InputError(f"{train}: 0 images, found {found_in(train)}; {_EXPECTED}")
    if not len(to_train) and not len(to_test):
        raise InputError(f"{to_test.folder}: 0 images, found {found_in(to_test.folder)}; {_EXPECTED}")
    if to_train.loose and to_train.classes:
        raise InputError(
            f"{train}: holds {len(to_train.loose)} loose images beside the folders "
            f"{to_train.listing()}: move the normal ones into train/good"
        )
    chosen = _normal_class(root, to_train, to_test, normal)
    masks = _find_masks(root)
    train_samples = tuple(Sample(path, NORMAL) for path in to_train.loose or to_train.classes.get(chosen, []))
    test_samples = tuple(_test_samples(to_test, chosen, masks))
    notes = [
        f"train/{name} not used ({len(paths):,} images)" for name, paths in to_train.classes.items() if name != chosen
    ]
    validation = _named(_folders(root), _VAL)
    if validation is not None and validation != test:
        notes.append(f"{validation.name}/ not used ({len(find_images(validation)):,} images)")
    elif test is not None and test == validation:
        notes.append(f"no test/, {test.name}/ used for it")
    if test and not len(to_test):
        notes.append(f"{test.name}/ holds 0 images")
    if masks:
        notes.extend(mask_note(test_samples))
    lone_good = chosen.casefold() == "good" and len(to_train.classes) <= 1
    layout: Layout = "mvtec" if masks or lone_good else "imagefolder"
    return Dataset(layout, root, train_samples, test_samples, True, tuple(notes))


def _normal_class(root: Path, train: _Part, test: _Part, normal: str | None) -> str:
    """Name the class folder that holds normals, by request or because there is no other."""
    classes = train.classes or test.classes
    if normal is not None:
        if train.loose and normal.casefold() not in GOOD_WORDS:
            raise InputError(f"{train.folder}: no class {normal!r}: the images lie loose in train/")
        return normal if train.loose else _match(root, classes, normal)
    if len(train.classes) == 1:
        lone = next(iter(train.classes))
        if lone.casefold() in BAD_WORDS:
            raise InputError(f"{train.folder}: only {lone}/, no normal images: add train/good")
        return lone
    good = [name for name in classes if name.casefold() in GOOD_WORDS]
    if train.loose or (not train.classes and (good or _has_ground_truth(root))):
        return good[0] if good else "good"
    if not train.classes and len(classes) == 1:
        return "good"  # a lone test/<type> holds defects
    if not classes:
        return "good"
    raise _which_class(root, train if train.classes else test, good)


def _which_class(root: Path, part: _Part, good: list[str]) -> InputError:
    return InputError(
        f"{root}: several classes: {part.listing()}; say which one is normal, such as "
        f"--normal {(good or list(part.classes))[0]} (normal={(good or list(part.classes))[0]!r}); "
        f"if all are normal, move them below train/good"
    )


def _match(root: Path, classes: Iterable[str], normal: str) -> str:
    names = list(classes)
    if normal in names:
        return normal
    matches = [name for name in names if name.casefold() == normal.casefold()]
    if len(matches) == 1:
        return matches[0]
    raise InputError(f"{root}: no class {normal!r}; found: {', '.join(names) or 'no class folder'}")


def _is_normal(name: str, chosen: str) -> bool:
    if chosen.casefold() in GOOD_WORDS:
        return name.casefold() in GOOD_WORDS
    return name == chosen


def _test_samples(part: _Part, chosen: str, masks: Mapping[tuple[str, str, str], Path]) -> Iterable[Sample]:
    yield from (Sample(path, UNKNOWN) for path in part.loose)
    for name, paths in part.classes.items():
        if _is_normal(name, chosen):
            yield from (Sample(path, NORMAL) for path in paths)
            continue
        for path in paths:
            where = path.parent.relative_to(part.folder / name).as_posix()
            stems = (f"{path.stem}_mask", path.stem)
            found = (masks.get((name.casefold(), where.casefold(), s.casefold())) for s in stems)
            mask = next((mask for mask in found if mask is not None), None)
            yield Sample(path, ANOMALOUS, mask, name)


def _has_ground_truth(root: Path) -> bool:
    return any(entry.name.casefold() == _GROUND_TRUTH for entry in root.iterdir())


def _find_masks(root: Path) -> dict[tuple[str, str, str], Path]:
    """Find mask files by (type, folder below it, stem), all in lower case."""
    masks: dict[tuple[str, str, str], Path] = {}
    for folder in sorted(root.iterdir()):
        if folder.name.casefold() != _GROUND_TRUTH:
            continue
        for place, _, files in os.walk(folder):
            kind, *below = Path(place).relative_to(folder).parts or ("",)
            where = "/".join(below) or "."
            for file in sorted(files):
                path = Path(place, file)
                if path.suffix.lower() in IMAGE_SUFFIXES and not file.startswith("."):
                    masks[kind.casefold(), where.casefold(), path.stem.casefold()] = path
    return masks


def _read_classes(root: Path, part: _Part, normal: str | None) -> Dataset:
    """Read class folders without train/ and test/ around them."""
    good = [name for name in part.classes if name.casefold() in GOOD_WORDS]
    lone = next(iter(part.classes)) if len(part.classes) == 1 else None
    if normal is not None:
        chosen = _match(root, part.classes, normal)
    elif lone is not None:
        if lone.casefold() not in BAD_WORDS:
            return _read_flat(root, part, None)
        chosen = "good"
    elif len(good) == 1:
        chosen = good[0]
    else:
        raise _which_class(root, part, good)
    train = tuple(Sample(path, NORMAL) for path in part.classes.get(chosen, []))
    rest = {name: paths for name, paths in part.classes.items() if name != chosen}
    masks = _find_masks(root)
    test = tuple(_test_samples(_Part(root, rest, []), chosen, masks))
    notes = mask_note(test)
    if part.loose:
        notes = (*notes, f"{len(part.loose):,} loose images not used")
    return Dataset("imagefolder", root, train, test, False, notes)


def _read_flat(root: Path, part: _Part, normal: str | None) -> Dataset:
    if normal is not None:
        raise InputError(f"{root}: no class folder {normal!r}: the images lie in one flat folder")
    bad = [name for name in part.classes if name.casefold() in BAD_WORDS]
    if bad:
        raise InputError(f"{root}: holds loose images beside {bad[0]}/: move the normal ones into good/")
    paths = sorted([*part.loose, *(path for paths in part.classes.values() for path in paths)])
    return Dataset("flat", root, tuple(Sample(path, NORMAL) for path in paths), (), False)
