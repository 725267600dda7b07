"""Folder layouts of data sets: MVTec style, ImageFolder style, class folders at any depth, flat."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anomem.data.classes import Placed, classify, match_class
from anomem.data.official.inside import read_mask
from anomem.data.pairing import Pairs, pair_masks
from anomem.data.samples import Dataset, Layout, Sample, mask_note
from anomem.errors import ImageError, InputError
from anomem.runtime.files import scan
from anomem.runtime.listing import Listing, found_in, list_folder
from anomem.runtime.words import class_of, is_enumerated, mentions_defect, split_of
from anomem.types import ANOMALOUS, NORMAL, UNKNOWN

__all__ = ["EXPECTED", "read_folder", "type_by_place"]

EXPECTED = (
    "expected train/good with test/<type> (MVTec), train/<class> (ImageFolder), good/ beside bad/ or <type>/, "
    "a folder of normal images, a zip of such a folder, or a CSV/Parquet table"
)


@dataclass(frozen=True)
class _Part:
    """Part of a data set: its images, with the folders between the part and each image."""

    folder: Path
    images: tuple[Path, ...]
    below: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.images)

    def listing(self) -> str:
        counts = Counter(below[0] for below in self.below if below)
        return ", ".join(f"{name} ({count:,})" for name, count in counts.items())

    def first_folders(self) -> list[str]:
        return list(dict.fromkeys(below[0] for below in self.below if below))

    def loose(self) -> int:
        return sum(not below for below in self.below)

    def is_one_class(self) -> bool:
        """Return True if there are no sibling folders that may be classes."""
        folders = self.first_folders()
        return len(folders) <= 1 or all(map(is_enumerated, folders))

    def class_name(self, i: int, place: Placed) -> str:
        """Return the path of the folder that labels image i."""
        return "/".join(self.below[i][: 1 if place.at is None else place.at + 1])

    def wrappers(self, chosen: str | None) -> set[str]:
        """Return the names of folders around the class folders."""
        placed = classify(self.below, chosen, self.folder)
        return {name for below, place in zip(self.below, placed, strict=True) for name in below[: place.at or 0]}


def read_folder(root: Path, normal: str | None) -> Dataset:
    """Recognise the layout of a folder and list its images.

    Parameters
    ----------
    root : Path
        An existing folder, zip, or folder inside a zip.
    normal : str, optional
        Class folder of the normal images.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        No image, several datasets, several classes without ``normal``, unknown ``normal``, or a folder of normal images
        inside a folder of anomalous images.
    """
    listing = list_folder(root, images_in=normal)
    if not listing.images:
        found = "; ".join(listing.notes()) or found_in(root)
        raise InputError(f"{root}: 0 images, found {found}; {EXPECTED}")
    pairs = pair_masks(root, listing.images, listing.masks)
    base = _base(listing)
    inside = base.relative_to(root).parts
    below = {path: path.relative_to(root).parts[len(inside) : -1] for path in listing.images}
    if any(split_of(part) for parts in below.values() for part in parts) or _split_folders(base):
        data = _read_split(base, below, normal, pairs)
    else:
        images = tuple(below)
        data = _read_classes(_Part(base, images, tuple(below[path] for path in images)), normal, pairs, root)
    used = {sample.path for sample in (*data.train, *data.test) if sample.mask is not None}
    idle = len(set(pairs.masks) - used)
    more = (f"{idle:,} masks of other images found, not read as images",) if idle else ()
    return replace(data, notes=(*data.notes, *more, *pairs.notes(root), *listing.notes(masks=False)))


def type_by_place(path: Path) -> str | None:
    """Return the type of defect from a path in MVTec style, ``test/<type>/<image>``; None for other paths.

    Examples
    --------
    >>> type_by_place(Path("tile/test/crack/001.png")), type_by_place(Path("crack/001.png"))
    ('crack', None)
    """
    folder = path.parent
    known = split_of(folder.parent.name) == "test" and class_of(folder.name) != NORMAL
    return folder.name if known else None


def _base(listing: Listing) -> Path:
    """Return the folder in which the layout begins, below wrapper folders.

    Raises
    ------
    InputError
        Several folders contain train/ or test/, or one does and other images lie beside it.
    """
    root = listing.folder
    all_parts = [path.relative_to(root).parts[:-1] for path in listing.images]
    wrappers = set()
    for parts in all_parts:
        at = next((i for i, part in enumerate(parts) if split_of(part)), None)
        if at is not None:
            wrappers.add(tuple(part for part in parts[:at] if class_of(part) is None))
    if len(wrappers) > 1:
        names = sorted("/".join(wrapper) or "." for wrapper in wrappers)
        raise InputError(
            f"{root}: holds {len(wrappers)} datasets ({', '.join(names)}); name one of them, such as {root / names[0]}"
        )
    if wrappers:
        (wrapper,) = wrappers
        beside = [parts for parts in all_parts if parts[: len(wrapper)] != wrapper]
        if beside:
            raise InputError(
                f"{root}: {'/'.join(wrapper)} is a dataset and {len(beside):,} images lie beside it; "
                f"name {root.joinpath(*wrapper)}"
            )
        return root.joinpath(*wrapper)
    common = list(all_parts[0])
    for parts in all_parts:
        shared = next((i for i, (a, b) in enumerate(zip(common, parts, strict=False)) if a != b), None)
        common = common[: min(len(common), len(parts)) if shared is None else shared]
    # Neither a class folder nor a folder with siblings that depend on its name is a wrapper.
    known = next(
        (i for i, part in enumerate(common) if class_of(part) is not None or mentions_defect(part)), len(common)
    )
    return root.joinpath(*common[:known])


def _split_folders(base: Path) -> dict[str, list[Path]]:
    """Return the folders of each part of a data set, with or without images."""
    found: dict[str, list[Path]] = defaultdict(list)
    for name, is_below in sorted(scan(base)):
        split = split_of(name)
        if split is not None and is_below:
            found[split].append(base / name)
    return found


def _parts(base: Path, below: Mapping[Path, tuple[str, ...]]) -> tuple[dict[str, _Part], list[str]]:
    """Sort images by part of the data set; others are counted in notes."""
    images: dict[str, list[Path]] = defaultdict(list)
    folders: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    places: dict[str, Path] = {}
    unused: Counter[str] = Counter()
    for path, parts in below.items():
        at = next((i for i, part in enumerate(parts) if split_of(part)), None)
        if at is None:
            unused[f"{parts[0]}/" if parts else "loose images"] += 1
            continue
        split = split_of(parts[at]) or "test"
        # A name such as train_good names a part and a class.
        kept = (parts[at],) if class_of(parts[at]) is not None else ()
        images[split].append(path)
        folders[split].append((*parts[:at], *kept, *parts[at + 1 :]))
        places.setdefault(split, base.joinpath(*parts[: at + 1]))
    found = {split: _Part(places[split], tuple(images[split]), tuple(folders[split])) for split in images}
    return found, [f"{name} not used ({count:,} images)" for name, count in unused.items()]


def _read_split(base: Path, below: Mapping[Path, tuple[str, ...]], normal: str | None, pairs: Pairs) -> Dataset:
    """Read a folder with training and test parts."""
    parts, notes = _parts(base, below)
    on_disk = _split_folders(base)
    empty = _Part(base, (), ())
    train, test = parts.get("train", empty), parts.get("test")
    if on_disk.get("train") and not len(train):
        place = on_disk["train"][0]
        raise InputError(f"{place}: 0 images, found {found_in(place)}; {EXPECTED}")
    if test is None and not on_disk.get("test") and "val" in parts:
        test = parts["val"]
        notes.append(f"no test/, {test.folder.name}/ used for it")
    elif "val" in parts:
        notes.append(f"{parts['val'].folder.name}/ not used ({len(parts['val']):,} images)")
    if test is None and on_disk.get("test"):
        notes.append(f"{on_disk['test'][0].name}/ holds 0 images")
    test = test or empty
    learnt, chosen, left_out = _training(base, train, normal, pairs)
    if not len(train) and normal is not None:
        chosen = match_class(base, test.below, normal)
    judged = _test_samples(base, test, chosen, train, pairs)
    masked = bool(pairs.masks or pairs.unmatched)
    if masked:
        notes += mask_note(judged)
    lone_good = (chosen or "good").casefold() == "good" and len(train.first_folders()) <= 1
    layout: Layout = "mvtec" if masked or lone_good else "imagefolder"
    return Dataset(layout, base, learnt, judged, True, (*left_out, *notes))


def _training(
    base: Path, train: _Part, normal: str | None, pairs: Pairs
) -> tuple[tuple[Sample, ...], str | None, list[str]]:
    """Return the normal images of a training part, the name of their class, and notes on images left out."""
    if not len(train):
        return (), None, []
    if train.loose():
        _check_loose(train, normal)
        samples, defects = _by_mask(train.images, pairs, base)
        return samples, normal, _left_out_by_mask(defects)
    if normal is not None:
        normal = match_class(base, train.below, normal)
    placed = classify(train.below, normal, train.folder)
    if all(place.label is None for place in placed):
        if not train.is_one_class():
            raise _which_class(base, train)
        samples, defects = _by_mask(train.images, pairs, base)
        return samples, train.first_folders()[0], _left_out_by_mask(defects)
    if normal is None and any(place.label is None or not place.named for place in placed):
        raise _which_class(base, train)
    names = dict.fromkeys(train.class_name(i, place) for i, place in enumerate(placed))
    if not any(place.label == NORMAL for place in placed):
        raise InputError(f"{train.folder}: only {', '.join(names)}/, no normal images; add train/good; {EXPECTED}")
    kept = [i for i, place in enumerate(placed) if place.label == NORMAL]
    left_out = Counter(train.class_name(i, place) for i, place in enumerate(placed) if place.label != NORMAL)
    notes = [f"{train.folder.name}/{name} not used ({count:,} images)" for name, count in left_out.items()]
    at = placed[kept[0]].at or 0
    return tuple(Sample(train.images[i], NORMAL) for i in kept), normal or train.below[kept[0]][at], notes


def _test_samples(base: Path, test: _Part, chosen: str | None, train: _Part, pairs: Pairs) -> tuple[Sample, ...]:
    """Label the images of a test part; loose images by their mask if any."""
    placed = classify(test.below, chosen, test.folder)
    unnamed = {below[0] for below, place in zip(test.below, placed, strict=True) if below and place.label is None}
    nothing_named = all(place.label is None for place in placed) and not len(train) and not pairs.masks
    if chosen is None and nothing_named and not pairs.unmatched and len(unnamed) > 1:
        raise _which_class(base, test)
    wrappers = train.wrappers(chosen)
    samples = []
    for path, below, place in zip(test.images, test.below, placed, strict=True):
        if place.label is None and not below:
            label = _label_by_mask(path, pairs)
            samples.append(Sample(path, label, pairs.masks.get(path) if label == ANOMALOUS else None))
            continue
        if place.label == NORMAL:
            samples.append(Sample(path, NORMAL))
            continue
        at = place.at
        if at is None:
            at = next((i for i, name in enumerate(below) if name not in wrappers), len(below) - 1)
        samples.append(Sample(path, ANOMALOUS, pairs.masks.get(path), below[at]))
    return tuple(samples)


def _read_classes(part: _Part, normal: str | None, pairs: Pairs, root: Path) -> Dataset:
    """Read class folders without train/ and test/, or a flat folder of normal images."""
    if normal is not None and not part.first_folders():
        raise InputError(f"{root}: no class folder {normal!r}: the images lie in one flat folder")
    if normal is not None:
        normal = match_class(root, part.below, normal)
    placed = classify(part.below, normal, part.folder)
    if all(place.label is None for place in placed):
        return _read_flat(part, pairs, root)
    holders = {below[: place.at] for below, place in zip(part.below, placed, strict=True) if place.at is not None}
    unknown = [below for below, place in zip(part.below, placed, strict=True) if place.label is None]
    has_normals = any(place.label == NORMAL for place in placed)
    bad = next((below[place.at] for below, place in zip(part.below, placed, strict=True) if place.at is not None), "")
    if unknown and not has_normals and set(unknown) & holders:
        raise InputError(f"{root}: holds loose images beside {bad}/; move the normal ones into good/; {EXPECTED}")
    if normal is None and set(unknown) - holders:
        raise _which_class(root, part)
    train, test = [], []
    for path, below, place in zip(part.images, part.below, placed, strict=True):
        if place.label == NORMAL:
            train.append(Sample(path, NORMAL))
        elif place.label == ANOMALOUS:
            test.append(Sample(path, ANOMALOUS, pairs.masks.get(path), below[place.at or 0]))
    notes = [*mask_note(test)]
    if not train and normal is None:
        notes.append(f"no folder of normal images; --normal {test[0].type} (normal=) if {test[0].type}/ holds them")
    if unknown:
        notes.append(f"{len(unknown):,} loose images not used")
    layout: Layout = "imagefolder" if test or normal is not None else "flat"
    return Dataset(layout, part.folder, tuple(train), tuple(test), False, tuple(notes))


def _read_flat(part: _Part, pairs: Pairs, root: Path) -> Dataset:
    if not part.loose() and not part.is_one_class():
        raise _which_class(root, part)
    train, test = _by_mask(part.images, pairs, root)
    notes = _left_out_by_mask(test)
    name = root.resolve().name
    if class_of(name.removesuffix(".zip")) == ANOMALOUS or mentions_defect(name):
        notes.append(f"the folder is named {name}, and its images are read as normal")
    return Dataset("flat", root, train, test, False, tuple(notes))


def _by_mask(images: Iterable[Path], pairs: Pairs, root: Path) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Separate normal images from those with a defect in their mask, where no folder labels them.

    Raises
    ------
    InputError
        An image without a mask is anomalous by its name.
    """
    images = list(images)
    defects = {path for path in images if _label_by_mask(path, pairs) == ANOMALOUS}
    unmasked = [path for path in images if path not in pairs.masks]
    named = [path for path in unmasked if class_of(path.stem) == ANOMALOUS]
    mentioning = [path for path in unmasked if mentions_defect(path.stem)]
    if len(mentioning) < len(unmasked):  # a word that all names have says nothing
        named = named or mentioning
    if named:
        raise InputError(
            f"{root}: {len(named):,} of {len(images):,} images are anomalous by their name ({named[0].name}); "
            f"move them into bad/, or all images below train/good if they are normal; {EXPECTED}"
        )
    return (
        tuple(Sample(path, NORMAL) for path in images if path not in defects),
        tuple(Sample(path, ANOMALOUS, pairs.masks[path]) for path in images if path in defects),
    )


def _label_by_mask(path: Path, pairs: Pairs) -> int:
    """Label an image by its mask: anomalous if it marks a defect, normal if it is black."""
    if path not in pairs.masks:
        return UNKNOWN
    try:
        return ANOMALOUS if read_mask(pairs.masks[path]).any() else NORMAL
    except ImageError:
        return ANOMALOUS  # an unreadable mask must not make an image normal


def _left_out_by_mask(defects: Sequence[Sample]) -> list[str]:
    return [f"{len(defects):,} images whose mask marks a defect are not learnt from"] if defects else []


def _check_loose(train: _Part, normal: str | None) -> None:
    if train.first_folders():
        raise InputError(
            f"{train.folder}: holds {train.loose()} loose images beside the folders {train.listing()}; "
            f"move the normal ones into train/good; {EXPECTED}"
        )
    if normal is not None and class_of(normal) != NORMAL:
        raise InputError(f"{train.folder}: no class {normal!r}: the images lie loose in train/")


def _which_class(root: Path, part: _Part) -> InputError:
    folders = part.first_folders()
    example = min(folders, key=lambda name: (class_of(name) != NORMAL, mentions_defect(name)))
    return InputError(
        f"{root}: several classes: {part.listing()}; say which one is normal, such as --normal {example} "
        f"(normal={example!r}); if all are normal, move them below train/good; {EXPECTED}"
    )
