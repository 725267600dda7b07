"""Image sources (files, arrays, tensors) and datasets of labelled files."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from anomem.data.layouts import read_folder
from anomem.data.official.inside import read_file
from anomem.data.samples import Dataset, Layout, Sample
from anomem.data.tables import TABLE_SUFFIXES, read_labels, read_table
from anomem.data.video import EVERY, frame_hw, frames, is_frame, is_video, read_videos, videos_in
from anomem.errors import AnomemWarning, InputError
from anomem.runtime.files import exists, is_file, is_folder
from anomem.runtime.images import IMAGE_SUFFIXES
from anomem.runtime.limits import image_bytes
from anomem.runtime.listing import image_files
from anomem.runtime.sources import ArraySource, FileSource, ImageSource, open_images
from anomem.runtime.words import class_of, mentions_defect
from anomem.types import ANOMALOUS, NORMAL, ImagesLike

__all__ = [
    "ArraySource",
    "Dataset",
    "ImageSource",
    "Layout",
    "PathSource",
    "Sample",
    "folder_samples",
    "list_images",
    "normal_samples",
    "open_source",
    "read_dataset",
    "read_labels",
    "strata_of",
    "table_samples",
    "training_samples",
]


def read_dataset(
    path: str | Path, *, normal: str | None = None, every: int = EVERY, stratum: str | None = None
) -> Dataset:
    """Read a folder, zip or table as a dataset of training and test images.

    Recognised are MVTec style (``train/good``, ``test/<type>``, ``ground_truth/<type>`` with
    ``<stem>_mask.png`` or ``<stem>.png``; ``train`` or ``test`` may be missing, masks too),
    ImageFolder style (``train/<class>``, ``test/<class>``; ``val/<class>`` serves as test where
    there is no test), class folders without ``train`` around them (the normal class trains, the
    others test), a flat folder of normal images with folders inside, and a table (see
    `anomem.data.tables.read_table`). Hidden files are skipped. A video file, or a folder of videos alone, gives frames
    (see `anomem.data.video.read_videos`).

    Parameters
    ----------
    path : str or Path
        Folder, zip of one (read in place), CSV or Parquet file.
    normal : str, optional
        Class folder of normal images; required if the training folder has several. Only this class
        is used for training; test images of all other classes are anomalous, with ``type`` the class.
    every : int
        Interval of the frames used of a video.
    stratum : str, optional
        Column of a table that holds the strata; by default ``stratum``.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        No usable images; the message names the files found and the expected layouts.
    MissingExtraError
        A Parquet table without pyarrow.
    """
    root = Path(path)
    videos = _videos(root)
    if videos:
        return read_videos(videos, root if is_folder(root) else root.parent, every, normal)
    if is_folder(root):
        return read_folder(root, normal)
    if exists(root) and root.suffix.lower() in TABLE_SUFFIXES:
        if normal is not None:
            raise InputError(f"{root}: normal={normal!r} is for class folders; use the label column")
        return read_table(root, stratum)
    if exists(root):
        found = f"found one {root.suffix or 'nameless'} file"
        raise InputError(f"{root}: {found}; give a folder of images, a zip of one, or a CSV/Parquet table")
    raise InputError(f"{root}: no such file or folder; check the path")


def _videos(root: Path) -> list[Path]:
    """List the videos of a path: the file itself, or those of a folder without images."""
    if is_folder(root):
        return videos_in(root)
    return [root] if is_video(root) else []


def training_samples(images: ImagesLike, stratum: str | None = None) -> list[Sample] | None:
    """Return the training samples of a data set, without test images.

    Parameters
    ----------
    images : object
        Input of `open_source`, or a Dataset.
    stratum : str, optional
        Column of a table that holds the strata.

    Returns
    -------
    list of Sample or None
        Training part of a folder, a table or a Dataset, or the given Samples; None for other inputs
        (paths, arrays, sources), which have no labels.

    Raises
    ------
    InputError
        As for `read_dataset`, and for no training images.
    """
    if isinstance(images, (str, Path)):
        path = Path(images)
        if not is_folder(path) and path.suffix.lower() not in TABLE_SUFFIXES and not is_video(path):
            return None
        images = read_dataset(path, stratum=stratum)
        if images.notes:
            warnings.warn(images.describe(), AnomemWarning, stacklevel=6)
    if isinstance(images, Dataset):
        if not images.train:
            raise InputError(f"{images.root}: 0 training images: {images.describe()}")
        return list(images.train)
    if isinstance(images, Iterator):
        images = list(images)
    if isinstance(images, Sequence) and images and all(isinstance(s, Sample) for s in images):
        return list(images)
    if isinstance(images, (list, tuple)) and any(map(is_video, images)):
        return [sample for path in images for sample in _file_samples(path)]
    return None


def _file_samples(path: str | Path) -> list[Sample]:
    """Return the normal samples of a file: one, or one per frame of a video, which form a group."""
    if is_video(path):
        return [Sample(frame, NORMAL, group=str(path)) for frame in frames(path)]
    return [Sample(Path(path), NORMAL)]


def folder_samples(folder: str | Path, default_label: int) -> list[Sample]:
    """Return all images of a folder, labelled by class words in folder names, or else with the default."""
    samples = []
    for path in map(Path, list_images(folder, among=False)):
        parts = path.relative_to(folder).parts[:-1]
        named = [ANOMALOUS if mentions_defect(part) else class_of(part) for part in parts]
        samples.append(Sample(path, next((label for label in reversed(named) if label is not None), default_label)))
    return samples


def normal_samples(
    images: ImagesLike, stratum: str | None = None
) -> tuple[ImagesLike, dict[str, Sequence[Hashable | None] | None]]:
    """Return the normal images of a data set for calibration, and their columns.

    Parameters
    ----------
    images : object
        As for `training_samples`.
    stratum : str, optional
        As for `training_samples`.

    Returns
    -------
    images : list of Sample, or object
        Normal training images of a data set; other inputs unchanged.
    columns : dict
        ``groups`` and ``strata``, one entry per image, or None where the data set has none.

    Raises
    ------
    InputError
        As for `training_samples`, and for a data set without normal images.
    """
    samples = training_samples(images, stratum)
    if samples is None:
        return images, {}
    normals = [sample for sample in samples if sample.label == NORMAL]
    if not normals:
        raise InputError(f"{images}: no normal images to calibrate on; give a folder of them")
    return normals, {"groups": sample_column(normals, "group"), "strata": sample_column(normals, "stratum")}


def sample_column(samples: Sequence[Sample], name: str) -> list[Hashable | None] | None:
    """Return the entry `name` of each sample; None where no sample has one."""
    column: list[Hashable | None] = [getattr(sample, name) for sample in samples]
    return column if any(column) else None


class PathSource(FileSource):
    """Image files, and images inside files; see `anomem.data.official.inside` for paths into files."""

    def content(self, i: int) -> bytes:
        """Read the bytes of file ``i``; ImageError if it cannot be read or is not an image."""
        path, limit = self._paths[i], self.reading.max_pixels
        return super().content(i) if exists(path) else read_file(path, image_bytes(limit), max_pixels=limit)

    def height_width(self, i: int) -> tuple[int, int]:
        """Return height and width of file ``i``, read from its header, or of a video's frame."""
        path = Path(self._paths[i])
        if is_frame(path) and not exists(path):
            return frame_hw(path, self.reading.max_pixels)
        return super().height_width(i)


def open_source(images: ImagesLike, *, max_pixels: int | None = None) -> ImageSource:
    """Open images of any supported input.

    Parameters
    ----------
    images : ImageSource, path, array, tensor, Pillow image, bytes, or sequence of these or of Samples
        Input. A folder or zip is searched recursively, a table gives the images of all its rows. Several
        paths may mix files and folders.
    max_pixels : int, optional
        Maximum number of pixels per image; `anomem.runtime.limits.MAX_PIXELS` by default.

    Returns
    -------
    ImageSource

    Raises
    ------
    InputError
        No images, a missing folder, or an unsupported input.
    """
    if isinstance(images, Dataset):
        raise InputError("a Dataset has two parts; give dataset.train or dataset.test")
    if isinstance(images, Iterator):
        images = list(images)
    if isinstance(images, Sequence) and images and all(isinstance(item, Sample) for item in images):
        images = PathSource(sample.path for sample in images)
    return open_images(images, files=PathSource, expand=list_images, max_pixels=max_pixels)


def list_images(path: str | Path, *, among: bool, every: int = EVERY) -> Sequence[str | Path]:
    """List the image files of a path like `anomem.runtime.listing.image_files`, rows of a table, or video frames."""
    place = Path(path)
    known = among and place.suffix.lower() in IMAGE_SUFFIXES  # no look at the disk: there may be very many
    videos = _videos(place) if not known and exists(place) else []
    if videos:
        return [frame for video in videos for frame in frames(video, every)]
    if place.suffix.lower() in TABLE_SUFFIXES and exists(place):
        return [sample.path for sample in table_samples(place)]
    return image_files(path, among=among)


def table_samples(table: Path, stratum: str | None = None) -> list[Sample]:
    """Return all rows of a table."""
    dataset = read_table(table, stratum)
    return [*dataset.train, *dataset.test]


def strata_of(images: ImagesLike, column: str) -> list[Hashable | None] | None:
    """Return the strata of samples, or of a table's column, in the order of `open_source`; None without any."""
    if isinstance(images, (str, Path)) and Path(images).suffix.lower() in TABLE_SUFFIXES and is_file(Path(images)):
        return sample_column(table_samples(Path(images), column), "stratum")
    if isinstance(images, (list, tuple)) and images and all(isinstance(item, Sample) for item in images):
        return sample_column(images, "stratum")
    return None
