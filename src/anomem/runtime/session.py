"""Scoring with exported models: needs numpy, Pillow, and ONNX Runtime or OpenVINO."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np

from anomem.errors import AnomemWarning, InputError, ModelFileError, ParameterError
from anomem.runtime.calibration import Calibration
from anomem.runtime.engines import Engine, open_engine
from anomem.runtime.exported import ExportedFacts, read_facts, write_facts
from anomem.runtime.frame import Frame
from anomem.runtime.manifest import Manifest
from anomem.runtime.metadata import checksum, is_exported, weights_of
from anomem.runtime.model import Model
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.recalibration import Fresh, MapScale, calibrated_anew, fresh_normals, seen_before
from anomem.runtime.scoring import ImageResult, PreparedImages, TileOutput, score_tiles
from anomem.runtime.sources import open_images
from anomem.types import ImagesLike, Record, UInt8Image

__all__ = ["Session"]


class Session(Model):
    """Exported model that scores like its original; created by :meth:`open`.

    Parameters
    ----------
    path : Path
        Exported file.
    facts : ExportedFacts
        Facts of the file.
    engine : Engine
        Inference engine with the loaded network.

    Examples
    --------
    A file written by ``anomem export model.safetensors --out model.onnx``::

        session = Session.open("model.onnx")
        session.anomaly_score("photos")  # (N,) float32
        session.predict("photos")  # 1 where anomalous
    """

    def __init__(self, path: Path, facts: ExportedFacts, engine: Engine) -> None:
        self.path, self.engine = path, engine
        self._file = _fingerprint(path)
        _engines[self._key()] = engine
        known = facts.export.get("arithmetic")
        if known not in (None, engine.arithmetic):
            line = f"{path}: calibrated in {known}, but this processor computes in {engine.arithmetic}"
            line += ": calibrate it here"
            warnings.warn(line, AnomemWarning, stacklevel=3)
        self._facts = facts if known else facts.with_arithmetic(engine.arithmetic)

    @classmethod
    def open(cls, path: str | Path, threads: int | None = None, engine: str = "auto") -> Self:
        """Load an exported model.

        Parameters
        ----------
        path : str or Path
            A .onnx file, or the .xml of an OpenVINO IR, its .bin beside it.
        threads : int, optional
            Number of inference threads; one per core by default.
        engine : {"auto", "onnxruntime", "openvino"}
            auto: OpenVINO for an IR; for ONNX the first installed of ONNX Runtime and OpenVINO.

        Raises
        ------
        ModelFileError
            The file is missing, damaged or not exported by anomem.
        MissingExtraError
            The engine is not installed.
        ParameterError
            Engine that does not read this file, or fewer than 1 thread.
        """
        if not is_exported(path):
            raise ModelFileError(f"{path}: not an exported model; give a .onnx file, or the .xml of an OpenVINO IR")
        facts = read_facts(path)
        found = open_engine(path, precision=facts.manifest.precision, threads=threads, engine=engine)
        if found.hw not in (None, facts.preprocessing.hw):
            raise ModelFileError(f"{path}: damaged: network and manifest differ in input size; export it again")
        return cls(Path(path), facts, found)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path and the current calibration; unpickling opens the file again."""
        return _reopen, (*self._key(), self._facts)

    def _key(self) -> tuple[Path, int | None, str, tuple[str, ...]]:
        return self.path.absolute(), self.engine.threads, self.engine.name, self._file

    @classmethod
    def _around(cls, path: Path, facts: ExportedFacts, engine: Engine, file: tuple[str, ...]) -> Self:
        session = cls.__new__(cls)
        session.path, session.engine, session._facts, session._file = path, engine, facts, file
        return session

    @property
    def name(self) -> str:
        """Name of the method."""
        return self._facts.manifest.method

    @property
    def localizes(self) -> bool:
        """True if the model draws anomaly maps."""
        return self.engine.localizes

    @property
    def manifest(self) -> Manifest:
        """Manifest of the model."""
        return self._facts.manifest

    @property
    def calibration_(self) -> Calibration:
        """Calibration scores, alpha, threshold and p-values."""
        return self._facts.calibration

    @property
    def map_scale_(self) -> tuple[float, float]:
        """Limits of the colour scale of the model's maps."""
        scale = self._facts.manifest.map_scale
        return (scale["low"], scale["high"]) if scale else (0.0, 1.0)

    @property
    def counts_(self) -> dict[str, int]:
        """Number of images by role: n_train, n_tune, n_calibration, n_labelled."""
        return dict(self._facts.manifest.counts)

    @property
    def groups_(self) -> Mapping[str, Any]:
        """Groups among the normals of the fit; see :func:`anomem.runtime.groups.group_facts`."""
        found = self._facts.manifest.facts.get("groups", {})
        return found if isinstance(found, Mapping) else {}

    @property
    def digests_by_role_(self) -> dict[str, frozenset[int]]:
        """Content hashes by role: learn, tune, calibration, labelled."""
        return dict(self._facts.digests)

    @property
    def preprocessing_(self) -> Preprocessing:
        """Steps from a decoded image to the network's input."""
        return self._facts.preprocessing

    @property
    def frame_(self) -> Frame | None:
        """Size at which the fit's normal images are seen; None for files that are older than this fact."""
        return self._facts.manifest.frame

    @property
    def resolved_(self) -> dict[str, Any]:
        """Hyperparameters of the fit, with the preset's values filled in."""
        return dict(self._facts.manifest.resolved)

    @property
    def paper(self) -> str:
        """Publication of the method."""
        return str(self._facts.export.get("paper", ""))

    def get_params(self) -> dict[str, Any]:
        """Return the hyperparameters as given to the model."""
        return dict(self._facts.manifest.params)

    def __repr__(self) -> str:
        return f"Session({str(self.path)!r}, method={self.name!r}, engine={self.engine.name!r})"

    def _before_scoring(self) -> None:
        facts = self._facts
        if facts.calibration.precision != facts.manifest.precision:
            line = f"{self.path}: scores in {facts.manifest.precision}, and was calibrated in "
            line += f"{facts.calibration.precision}: its p-values may be wrong until you calibrate it"
            warnings.warn(line, AnomemWarning, stacklevel=3)

    def _prepared(
        self, images: ImagesLike, *, workers: int | None, skip_bad: bool, max_pixels: int | None
    ) -> PreparedImages:
        source = open_images(images, max_pixels=max_pixels)
        return PreparedImages(source, self._facts.preprocessing, workers=workers, skip_bad=skip_bad)

    def _results(self, images: PreparedImages, *, maps: bool, batch_size: int, device: str) -> Iterator[ImageResult]:
        whole = images.preprocessing if maps else None
        yield from self._scored(images, maps=maps, batch_size=batch_size, device=device, whole=whole)

    def _scored(
        self,
        images: PreparedImages,
        *,
        maps: bool,
        batch_size: int,
        device: str,
        whole: Preprocessing | None = None,
    ) -> Iterator[ImageResult]:
        if device not in ("auto", "cpu"):
            raise ParameterError(f"device={device!r} is not available to exported models; they run on the cpu")

        def network(tiles: UInt8Image) -> TileOutput:
            return self.engine(tiles, maps=maps)

        return score_tiles(images.prepared(batch_size), network, batch_size=batch_size, maps=maps, whole=whole)

    def _with_alpha(self, alpha: float) -> None:
        self._facts = self._facts.with_calibration(self.calibration_.with_alpha(alpha))

    def _calibrated(
        self, images: PreparedImages, fresh: Fresh, *, batch_size: int, device: str
    ) -> Generator[Record, None, None]:
        images, wanted = fresh_normals(images, seen_before(self._facts.digests, fresh), fresh)
        results = self._scored(images, maps=self.localizes, batch_size=batch_size, device=device)
        scores, kept, digests, scale = [], [], [], MapScale()
        for done, result in enumerate(results, start=1):
            if result.error is None:
                scores.append(result.score)
                kept.append(done - 1)
                digests.append(result.digest)
                scale.add(result)
            yield Record("calibrate", done, len(images))
        if not scores:
            raise InputError("none of the images to calibrate on can be read; check their files")
        precision = self._facts.manifest.precision
        values = np.asarray(scores, np.float32)
        calibration = calibrated_anew(values, wanted.subset(kept), self.calibration_, precision)
        used = frozenset(digests) | (self._facts.digests["calibration"] if fresh.blend else frozenset())
        facts = self._facts.with_calibration(calibration, digests=used, scale=scale.result())
        self._facts = facts.with_arithmetic(self.engine.arithmetic)

    def save(self, path: str | Path | None = None) -> None:
        """Write the current calibration to the file, or to a copy of an ONNX file.

        Raises
        ------
        InputError
            Copy of another format, or of an IR, which is two files; or the folder cannot be written.
        """
        target = self.path if path is None else Path(path)
        moves = target.resolve() != self.path.resolve()
        if moves and (self.path.suffix.lower() == ".xml" or target.suffix.lower() != self.path.suffix.lower()):
            raise InputError(f"{target}: an exported model keeps its format; of an IR copy both files first")
        write_facts(self.path, self._facts, target)
        if not moves:
            self._file = _fingerprint(self.path)


_engines: WeakValueDictionary[tuple[Path, int | None, str, tuple[str, ...]], Engine] = WeakValueDictionary()
"""Engines of this process by file, since a forked process cannot start new ones."""


def _reopen(path: Path, threads: int | None, engine: str, file: tuple[str, ...], facts: ExportedFacts) -> Session:
    """Open the file of a pickled session, unless this process has it open.

    Raises
    ------
    ModelFileError
        The file is missing or has been replaced.
    """
    found = _engines.get((path, threads, engine, file))
    if found is not None:
        return Session._around(path, facts, found, file)
    session = Session.open(path, threads, engine)
    if session._file != file:
        raise ModelFileError(f"{path}: has been replaced since the session was opened; open it again")
    session._facts = facts
    return session


def _fingerprint(path: Path) -> tuple[str, ...]:
    """Return the checksums of an exported model's files."""
    return tuple(checksum(file) for file in (path, weights_of(path)) if file is not None)
