"""Base of every fitted model: one module from prepared images to scores and maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn


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


class TwoStageScorer(Scorer):
    """Scorer whose score can be refitted to labels without the normal images.

    It stores one-class scores and evidence (float16) of *tune* and *calibration* normals: from these the
    second stage is refitted and the calibration scores are computed anew.
    """

    tune_one_class: Tensor
    tune_evidence: Tensor
    calibration_one_class: Tensor
    calibration_evidence: Tensor

    def __init__(self, config: dict[str, Any], evidence_dim: int) -> None:
        super().__init__(config)
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

    def conclude(self, one_class: Tensor, evidence: Tensor) -> Tensor:
        """Return scores (B,) of the second stage from one-class scores (B,) and evidence (B, D)."""
        raise TypeError(f"{type(self).__name__}: conclude is missing; override it")
