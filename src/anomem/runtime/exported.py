"""Facts of an exported file: manifest, calibration, region of interest, content hashes."""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomem.errors import ModelFileError, one_line
from anomem.runtime.calibration import Calibration
from anomem.runtime.limits import MAX_ARRAY_BYTES
from anomem.runtime.manifest import Manifest
from anomem.runtime.metadata import checksum, has_checksum, read_texts, weights_of, write_texts
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.seal import SEAL, check_seal
from anomem.runtime.strata import Strata

__all__ = ["ROLES", "ExportedFacts", "read_facts", "write_facts"]

ROLES = ("learn", "tune", "calibration", "labelled")
"""Roles of images in a model."""

_DTYPES = ("<f4", "<u8", "|b1")
_ARRAYS = (
    "calibration_scores",
    "calibration_groups",
    "calibration_strata",
    "roi",
    *(f"digests_{role}" for role in ROLES),
)


@dataclass(frozen=True)
class ExportedFacts:
    """Facts of an exported model without its network.

    Parameters
    ----------
    manifest : Manifest
        Manifest as in a model file, with the export settings in ``facts["export"]``.
    preprocessing : Preprocessing
        Steps from an image to the network's input.
    calibration : Calibration
        Calibration scores and alpha.
    digests : mapping of str to frozenset of int
        Content hashes of the images used to make the model, by role.
    """

    manifest: Manifest
    preprocessing: Preprocessing
    calibration: Calibration
    digests: Mapping[str, frozenset[int]]

    @property
    def export(self) -> Mapping[str, Any]:
        """Settings of the export."""
        found = self.manifest.facts.get("export", {})
        return found if isinstance(found, Mapping) else {}

    def with_calibration(
        self,
        calibration: Calibration,
        *,
        digests: frozenset[int] | None = None,
        scale: tuple[float, float] | None = None,
    ) -> ExportedFacts:
        """Return the same facts with another calibration, and the hashes and colour scale of its images if given."""
        manifest = replace(
            self.manifest,
            calibration=calibration.facts(),
            counts={**self.manifest.counts, "n_calibration": calibration.n},
        )
        if scale is not None:
            manifest = replace(manifest, map_scale=dict(zip(("low", "high"), scale, strict=True)))
        known = self.digests if digests is None else {**self.digests, "calibration": digests}
        return replace(self, manifest=manifest, calibration=calibration, digests=known)

    def with_arithmetic(self, arithmetic: str) -> ExportedFacts:
        """Return the same facts with the arithmetic ("f32", "bf16") of the non-int8 operations."""
        facts = {**self.manifest.facts, "export": {**self.export, "arithmetic": arithmetic}}
        return replace(self, manifest=replace(self.manifest, facts=facts))

    def to_texts(self) -> dict[str, str]:
        """Return the facts as texts, inverse of :meth:`from_texts`."""
        arrays: dict[str, npt.NDArray[Any]] = {"calibration_scores": self.calibration.scores.astype("<f4")}
        if self.calibration.groups is not None:
            arrays["calibration_groups"] = self.calibration.groups.astype("<u8")
        if self.calibration.strata is not None:
            arrays["calibration_strata"] = self.calibration.strata.numbers.astype("<u8")
        for role in ROLES:
            arrays[f"digests_{role}"] = np.asarray(sorted(self.digests.get(role, ())), dtype="<u8")
        if self.preprocessing.roi is not None:
            arrays["roi"] = self.preprocessing.roi
        packed = {name: _packed(array) for name, array in arrays.items()}
        return {"manifest": self.manifest.to_json(), "arrays": json.dumps(packed)}

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], *, name: str) -> ExportedFacts:
        """Parse the texts of :meth:`to_texts`.

        Parameters
        ----------
        texts : mapping of str to str
        name : str
            Name of the file in errors.

        Raises
        ------
        ModelFileError
            A text is missing or was changed.
        """
        if "manifest" not in texts:
            raise ModelFileError(f"{name}: without anomem's manifest; give a file that `anomem export` wrote")
        manifest = Manifest.from_json(texts["manifest"], name=name)
        try:
            arrays = _all_unpacked(json.loads(texts.get("arrays", "{}")))
            facts = manifest.calibration
            return cls(
                manifest,
                Preprocessing.from_dict(manifest.preprocessing, arrays.get("roi")),
                Calibration(
                    arrays["calibration_scores"],
                    float(facts["alpha"]),
                    str(facts["precision"]),
                    arrays["calibration_groups"].astype(np.intp) if "groups" in facts else None,
                    str(facts.get("kind", "split")),
                    int(facts.get("folds", 0)),
                    Strata.stored(facts, arrays.get("calibration_strata")),
                    facts.get("blended", 0),
                ),
                {role: frozenset(arrays[f"digests_{role}"].tolist()) for role in ROLES},
            )
        except Exception as error:  # changed facts raise nearly everything
            raise ModelFileError(f"{name}: damaged: its facts do not fit together ({one_line(error, 200)})") from error


def read_facts(path: str | Path) -> ExportedFacts:
    """Read the facts of an exported file without its network.

    Raises
    ------
    ModelFileError
        The file is missing, damaged or not exported by anomem, or the weights of an IR are missing or do not match.
    """
    texts = read_texts(path)
    check_seal(path, expected=SEAL in texts)
    facts = ExportedFacts.from_texts(texts, name=str(path))
    weights = weights_of(path)
    if weights is not None:
        if not weights.is_file():
            raise ModelFileError(f"{path}: its weights, {weights.name}, are missing; keep both files together")
        if not has_checksum(weights, texts.get("weights")):
            raise ModelFileError(f"{weights}: damaged, or of another export than {Path(path).name}; export it again")
    return facts


def write_facts(path: str | Path, facts: ExportedFacts, target: str | Path | None = None) -> None:
    """Replace the facts in an exported file atomically; the network is unchanged.

    Parameters
    ----------
    path : str or Path
    facts : ExportedFacts
    target : str or Path, optional
        File to write instead; for ONNX only, since the weights of an IR belong to a file of the same name.

    Raises
    ------
    ModelFileError
        As for `read_facts`.
    InputError
        The folder is missing or not writable.
    """
    texts = facts.to_texts()
    weights = weights_of(path)
    if weights is not None and weights.is_file():
        texts["weights"] = checksum(weights)
    write_texts(path, texts, target)


def _packed(array: npt.NDArray[Any]) -> dict[str, Any]:
    content = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": content}


def _all_unpacked(packed: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Unpack the known arrays of a model, within a limit on their total size."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in _ARRAYS:
        if name in packed:
            arrays[name] = _unpacked(packed[name], MAX_ARRAY_BYTES - sum(array.nbytes for array in arrays.values()))
    return arrays


def _unpacked(packed: Mapping[str, Any], max_bytes: int) -> npt.NDArray[Any]:
    """Unpack an array; a wrong size is refused before memory is allocated."""
    shape = tuple(packed["shape"])
    if packed["dtype"] not in _DTYPES or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError("an array of an unknown kind")
    dtype = np.dtype(packed["dtype"])
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > max_bytes:
        raise ValueError("an array that is too large")
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(packed["data"], validate=True), wanted + 1)
    except binascii.Error as error:
        raise ValueError("an array that is not base64") from error
    if len(content) != wanted:
        raise ValueError("an array of another size than declared")
    return np.frombuffer(content, dtype).reshape(shape).copy()
