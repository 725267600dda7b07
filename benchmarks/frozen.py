"""Features of many images, extracted once and kept on disk, for benchmarks that fit to them again and again.

A detector is fitted and scores through its ordinary path. Only two things differ from images in files: a source whose
"images" are squares of one colour that spells the row of the table of features, and a backbone that reads that colour
and looks the features up.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from anomem.data.imageset import ImageSet
from anomem.data.sources import ImageSource, PathSource
from anomem.detectors import DETECTORS
from anomem.nn.backbones import DEFAULT_BACKBONE, FeatureInfo, load_backbone
from anomem.nn.inference import feature_batches
from anomem.runtime.preprocess import Preprocessing
from anomem.types import UInt8Image

CHUNK = 512
"""Images extracted between two notes of progress."""


class FeatureTable:
    """Feature maps of some images, one row an image, float16 or float32, on disk.

    Parameters
    ----------
    folder : Path
        Of the table; extraction goes on where it stopped.
    paths : list of Path
        The images, in the order of the rows.
    stages : tuple of int or str
        Of the default backbone; the pooled embedding always follows.
    size : int
        Side of the input, pixels.
    precision : {"float32", "bfloat16"}
        Of the backbone's forward pass.
    dtype : {"float16", "float32"}
        Of the table.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        stages: Sequence[int | str],
        size: int,
        *,
        precision: str,
        dtype: str = "float16",
    ) -> None:
        self.paths, self.stages, self.size, self.precision = list(paths), tuple(stages), size, precision
        backbone = load_backbone(DEFAULT_BACKBONE, self.stages, embedding=True, folded=True).eval()
        self.mean = backbone.mean
        self.infos = backbone.describe(size)
        self.widths = [info.channels * info.hw[0] * info.hw[1] for info in self.infos]
        folder.mkdir(parents=True, exist_ok=True)
        shape = (len(self.paths), sum(self.widths))
        file, self._progress = folder / "features.bin", folder / "progress.json"
        facts = {"shape": shape, "stages": self.stages, "size": size, "precision": precision, "dtype": dtype}
        self._facts = json.loads(json.dumps(facts))
        done = self._done()
        self.rows = np.memmap(file, dtype, "r+" if done else "w+", shape=shape)
        self._extract(backbone, done)
        self._digests: dict[int, int] = {}

    def _done(self) -> int:
        if not self._progress.exists():
            return 0
        noted = json.loads(self._progress.read_text(encoding="utf-8"))
        return int(noted["done"]) if noted["facts"] == self._facts else 0

    def _extract(self, backbone: Any, done: int) -> None:
        preprocessing = Preprocessing(size=self.size)
        for start in range(done, len(self.paths), CHUNK):
            part = ImageSet(PathSource(self.paths[start : start + CHUNK]), preprocessing)
            row = start
            for maps in feature_batches(backbone, part, precision=self.precision, batch_size=32):
                flat = torch.cat([m.flatten(1) for m in maps], dim=1).numpy()
                self.rows[row : row + len(flat)] = flat
                row += len(flat)
            self.rows.flush()
            self._progress.write_text(json.dumps({"facts": self._facts, "done": row}), encoding="utf-8")
            print(f"features: {row} of {len(self.paths)}", end="\r", flush=True)

    def digest(self, row: int) -> int:
        """Content hash of the image file, so that splits are those of the files."""
        if row not in self._digests:
            self._digests[row] = PathSource([self.paths[row]]).digest(0)
        return self._digests[row]


class TableSource(ImageSource):
    """Rows of a table, as images whose one colour is the row's number."""

    def __init__(self, table: FeatureTable, rows: Iterable[int]) -> None:
        self.table, self._rows = table, [int(row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, i: int) -> UInt8Image:
        """A square of the model's input size: red the lowest byte of the row's number, blue the highest."""
        row, side = self._rows[i], self.table.size
        colour = np.asarray([row & 255, row >> 8 & 255, row >> 16], np.uint8)
        return np.broadcast_to(colour, (side, side, 3)).copy()

    def name(self, i: int) -> str:
        """Path of the image that the row stands for."""
        return str(self.table.paths[self._rows[i]])

    def digest(self, i: int) -> int:
        """Content hash of the file."""
        return self.table.digest(self._rows[i])

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Both."""
        return self.load(i), self.digest(i)

    def subset(self, indices: Iterable[int]) -> TableSource:
        """Some of the rows."""
        return TableSource(self.table, [self._rows[i] for i in indices])


class TableBackbone(nn.Module):
    """Reads the row's number from the colour and returns the row's feature maps, as a backbone would."""

    mean: Tensor

    def __init__(self, table: FeatureTable) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("mean", table.mean)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps [(B, C_s, h_s, w_s)], float32, the embedding last."""
        corner = images[:, :, 0, 0].to(torch.int64)
        numbers = (corner[:, 0] + 256 * corner[:, 1] + 65536 * corner[:, 2]).tolist()
        found = torch.from_numpy(np.asarray(self.table.rows[numbers], np.float32))
        parts = found.split(self.table.widths, dim=1)
        return [p.view(len(p), i.channels, *i.hw) for p, i in zip(parts, self.table.infos, strict=True)]

    def describe(self, size: int) -> list[FeatureInfo]:
        """Channels and size of every map."""
        if size != self.table.size:
            raise ValueError(f"the table holds features at {self.table.size} pixels, not at {size}")
        return self.table.infos

    def __deepcopy__(self, memo: dict[int, Any]) -> TableBackbone:
        """Share the table: it is read only."""
        return self


@contextmanager
def features_from(table: FeatureTable) -> Iterator[None]:
    """Let detectors that are fitted within this context take their features from a table."""

    def load(name: str, stages: Sequence[int | str], *, embedding: bool = False, **_: Any) -> TableBackbone:
        wanted = [s + 5 if isinstance(s, int) and s < 0 else s for s in stages]
        if name != DEFAULT_BACKBONE or not embedding or wanted != list(table.stages):
            raise ValueError(f"the table holds stages {table.stages} of {DEFAULT_BACKBONE}, not {stages} of {name}")
        return TableBackbone(table)

    for place in DETECTORS.values():
        import_module(place.split(":")[0])
    ours = [module for name, module in sys.modules.items() if name.startswith("anomem.")]
    with ExitStack() as stack:
        for module in ours:
            if vars(module).get("load_backbone") is load_backbone:
                stack.enter_context(patch.object(module, "load_backbone", load))
        yield
