"""Base of every fitted model: one module from prepared images to scores and maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from anomem.nn.backbones import Backbone


class Output(NamedTuple):
    """Outputs of a scorer for a batch of prepared images (or tiles of images).

    Parameters
    ----------
    score : Tensor
        (B,) float32, higher = more anomalous, raw.
    map : Tensor or None
        (B, h, w) float32 in the frame of the prepared image, at any resolution; None where the method does not
        localise.
    one_class : Tensor or None
        (B,) float32, the score without labels; None where that is `score` itself. Of an image cut into tiles,
        the tile with the highest one-class score represents the image.
    evidence : Tensor or None
        (B, D) float16, all that the second stage needs to turn ``one_class`` into ``score``; only from
        :meth:`TwoStageScorer.observe`.
    """

    score: Tensor
    map: Tensor | None = None
    one_class: Tensor | None = None
    evidence: Tensor | None = None


def input_hw(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width of a scorer's inputs, pixels: ``input_hw`` of its config, or a square of ``size``."""
    height, width = config.get("input_hw") or (config["size"], config["size"])
    return int(height), int(width)


def frame_config(hw: tuple[int, int], size: int) -> dict[str, Any]:
    """Return the entries of a scorer's config that state its inputs; see :func:`input_hw`."""
    return {"size": size} if hw == (size, size) else {"size": size, "input_hw": list(hw)}


class Scorer(nn.Module):
    """Base of the fitted modules; ``state_dict`` is the whole fitted state.

    Parameters
    ----------
    config : dict
        JSON-ready facts from which the module's class can be built again, empty, with every tensor in its shape.
    """

    continuous: ClassVar[bool] = True
    """True where a score moves no further than rounding moves the features. Where it moves in steps, as the depth of a
    tree does, another order of additions may move single images by a step."""

    @property
    def grid_hw(self) -> tuple[int, int] | None:
        """Positions of the finest map that scores are made of, height and width; None for a method without maps."""
        return None

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Tensor) -> Output:
        """Score prepared images.

        Parameters
        ----------
        images : Tensor
            (B, 3, H, W), RGB, uint8 or float with values 0 to 255.
        """
        raise TypeError(f"{type(self).__name__}: forward is missing; override it")

    def judge(self, images: Tensor) -> Output:
        """Score as `forward` does where no map is asked for; overridden where that is less work."""
        output: Output = self(images)
        return output


class TwoStageScorer(Scorer):
    """Scorer whose score can be refitted to labels without the normal images.

    It stores one-class scores and evidence (float16) of *tune* and *calibration* normals: from these the
    second stage is refitted and the calibration scores are computed anew.

    Attributes
    ----------
    folds : Tensor or None
        Fold of each tune normal, (n,) int64, of a cross-fit. Until others are remembered, these are the calibration
        normals too, and the second stage that scores a fold's normals is fitted without them.
    """

    tune_one_class: Tensor
    tune_evidence: Tensor
    calibration_one_class: Tensor
    calibration_evidence: Tensor
    folds: Tensor | None

    def __init__(self, config: dict[str, Any], evidence_dim: int) -> None:
        super().__init__(config)
        self._out_of_fold: Tensor | None = None
        folds = torch.zeros(int(config.get("n_tune", 0)), dtype=torch.int64)
        self.register_buffer("folds", folds if config.get("folded") else None)
        for part in ("tune", "calibration"):
            n = int(config.get(f"n_{part}", 0))
            self.register_buffer(f"{part}_one_class", torch.zeros(n))
            self.register_buffer(f"{part}_evidence", torch.zeros(n, evidence_dim, dtype=torch.float16))

    def observe(self, images: Tensor) -> Output:
        """Score as `forward` does, and return the one-class score and the evidence as well."""
        raise TypeError(f"{type(self).__name__}: observe is missing; override it")

    def remember(self, part: str, one_class: Tensor, evidence: Tensor) -> None:
        """Store what `part` ("tune" or "calibration") needs for a later refit: (n,) float32 and (n, D) float16."""
        self.config[f"n_{part}"] = int(one_class.shape[0])
        device = self.tune_one_class.device
        setattr(self, f"{part}_one_class", one_class.to(device, torch.float32))
        setattr(self, f"{part}_evidence", evidence.to(device, torch.float16))
        if part == "calibration":
            self._out_of_fold = None
            self.config.pop("calibrated_on_tune", None)

    def remember_folds(self, folds: Tensor) -> None:
        """Store the fold of each tune normal, (n,); these calibrate too."""
        self.folds = folds.to(self.tune_one_class.device)
        self.config |= {"folded": True, "calibrated_on_tune": True}

    @property
    def calibrated_on_tune(self) -> bool:
        """True where the tune normals of a cross-fit calibrate."""
        return bool(self.config.get("calibrated_on_tune"))

    def adopt_scores(self, scores: Tensor) -> None:
        """Take (n,) scores of the calibration normals by second stages that were fitted without their folds."""
        self._out_of_fold = scores

    def calibration_scores(self) -> Tensor:
        """Return (n,) scores of the calibration normals, with folds each by a second stage fitted without its fold."""
        if self._out_of_fold is not None:
            return self._out_of_fold
        return self.conclude(self.calibration_one_class, self.calibration_evidence)

    def conclude(self, one_class: Tensor, evidence: Tensor) -> Tensor:
        """Return scores (B,) of the second stage from one-class scores (B,) and evidence (B, D)."""
        raise TypeError(f"{type(self).__name__}: conclude is missing; override it")


class Deviation(NamedTuple):
    """Deviation of tiles from the normals that a memory has learnt, before any standardisation.

    Parameters
    ----------
    norms : list of Tensor
        Per scale (B, h, w), or (B,) where a method has one value per image; float32.
    evidence : Tensor or None
        (B, D) float16, inputs of a second stage.
    deltas : sequence of Tensor
        Per scale (B, C, h, w), of which some positions are kept for labelled masks; may be empty.
    """

    norms: list[Tensor]
    evidence: Tensor | None = None
    deltas: Sequence[Tensor] = ()


class OutOfSample(NamedTuple):
    """Normals as memories without them see them.

    Parameters
    ----------
    norms : list of Tensor
        Norms of all tiles per scale.
    deltas : list of Tensor
        Sampled deviations per scale, (M, C); empty unless `MapScorer.sampled`.
    one_class, evidence : Tensor
        (n,) scores and (n, D) evidence of the images, in order.
    folds : Tensor
        (n,) fold of each image.
    """

    norms: list[Tensor]
    deltas: list[Tensor]
    one_class: Tensor
    evidence: Tensor | None
    folds: Tensor


class MapScorer(Scorer):
    """Base of scorers on a frozen backbone's maps whose fit has two steps: a memory, then a standardisation.

    Attributes
    ----------
    backbone : Backbone
        From prepared images to a list of maps.
    """

    sampled: ClassVar[int] = 0
    """Number of deviations per scale that :meth:`adopt` needs."""

    backbone: Backbone

    def deviation_of(self, maps: list[Tensor]) -> Deviation:
        """Return the deviation of the tiles that have these maps."""
        raise TypeError(f"{type(self).__name__}: deviation_of is missing; override it")

    def align(self) -> None:
        """Turn deviations along axes that scorers of all folds share, norms unchanged; nothing by default."""

    def keep_fold(self, fold: MapScorer) -> None:
        """Keep the memory without one fold, where labels are later compared with that fold; nothing by default."""

    def fuse(self, norms: Sequence[Tensor]) -> Output:
        """Return score and map from the norms of a deviation."""
        raise TypeError(f"{type(self).__name__}: fuse is missing; override it")

    def standardise_on(self, norms: Sequence[Tensor]) -> None:
        """Learn the distribution of the norms of normals that are not in the memory; nothing by default."""

    def adopt(self, normals: OutOfSample) -> None:
        """Keep what a second stage needs of normals that are not in the memory; nothing by default."""
