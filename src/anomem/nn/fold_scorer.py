"""Scorer by the memories of all folds (CV+): one score that has the p-value of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anomem.nn.scorer import MapScorer, Output, Scorer

__all__ = ["MEMBERS", "FoldScorer"]

MEMBERS = "members"
"""Entry of an architecture that holds those of the folds' scorers."""

_ROUNDING = 1e-9
"""Tolerance of sums of weights, which are fractions."""


class FoldScorer(Scorer):
    """Scorers of K folds on one backbone.

    The p-value of an image x is ``(1 + sum_i w_i [s_i >= s_k(i)(x)]) / (G + 1)``, with w_i the share of its group that
    calibration image i is, and s_k the score by the memory without fold k. The score returned is the mean of the s_k,
    moved as far as needed to a value t with ``sum_i w_i [s_i >= t]`` equal to that sum, or to the next higher one where
    none is equal. So p-values, thresholds and verdicts follow from it as from any other score.

    Of an image cut into tiles the highest t counts, whose p-value is never below that of the image's K scores.

    Parameters
    ----------
    config : dict
        ``members``: configs of the folds' scorers; ``n_scores``: number n of calibration scores.
    members : list of MapScorer
        Scorers of the folds; the backbone of the first serves all.

    References
    ----------
    Barber, Candes, Ramdas and Tibshirani, "Predictive inference with the jackknife+", 2021.
    """

    scores: Tensor
    folds: Tensor
    weights: Tensor

    def __init__(self, config: dict[str, Any], members: Sequence[MapScorer]) -> None:
        super().__init__(config)
        self.backbone = members[0].backbone
        for member in members:
            del member._modules["backbone"]
        self.members = nn.ModuleList(members)
        n = int(config["n_scores"])
        self.register_buffer("scores", torch.zeros(n))
        self.register_buffer("folds", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(n, dtype=torch.float64))

    @classmethod
    def of(cls, members: Sequence[MapScorer], scores: Tensor, folds: Tensor, weights: Tensor) -> FoldScorer:
        """Return the scorer of fitted folds from out-of-sample scores (n,), their folds and weights."""
        scorer = cls({MEMBERS: [member.config for member in members], "n_scores": len(scores)}, members)
        order = scores.argsort(stable=True)
        scorer.scores, scorer.folds, scorer.weights = scores[order], folds[order], weights[order].double()
        return scorer

    @classmethod
    def built(cls, build: Callable[[dict[str, Any]], Scorer], config: dict[str, Any]) -> FoldScorer:
        """Build an empty scorer by the function that builds one fold's."""
        members = [build(member) for member in config[MEMBERS]]
        return cls(config, [member for member in members if isinstance(member, MapScorer)])

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, S, S); the map is the mean of the folds' maps."""
        maps = self.backbone(images)
        outputs = [self._member(k).fuse(self._member(k).deviation_of(maps).norms) for k in range(len(self.members))]
        drawn = [output.map for output in outputs if output.map is not None]
        scores = torch.stack([output.score.float() for output in outputs], dim=1)
        return Output(self.joined(scores), torch.stack(drawn).mean(dim=0) if drawn else None)

    def joined(self, scores: Tensor) -> Tensor:
        """Return one score per image from those of all folds: (B, K) to (B,)."""
        reached = ((self.scores >= scores[:, self.folds]) * self.weights).sum(dim=1)
        above = self.weights.flip(0).cumsum(0).flip(0)
        place = (above >= reached[:, None] - _ROUNDING).sum(dim=1)  # that many scores lie below or at t
        edges = torch.cat([self.scores.new_tensor([-torch.inf]), self.scores, self.scores.new_tensor([torch.inf])])
        low, high = edges[place - (reached > 0).long()], edges[place + (reached <= 0).long()]
        return torch.minimum(torch.maximum(scores.mean(dim=1), torch.nextafter(low, high)), high)

    def _member(self, fold: int) -> MapScorer:
        member = self.members[fold]
        if not isinstance(member, MapScorer):
            raise TypeError(f"{type(member).__name__}: no scorer on maps; build it by its method")
        return member
