"""Greedy k-centre selection: the picks of anomalib's sampler, without distances that cannot matter."""

from __future__ import annotations

import torch
from torch import Tensor

SLACK = 1e-3
"""Share by which rounded distances are mistrusted that only choose which others are computed."""
FEW = 0.2
"""Share of the rows up to which distances are computed at once, without a look at their rounded squares."""


def farthest_points(features: Tensor, count: int, first: int) -> list[int]:
    """Return rows chosen one by one, each the farthest from those chosen before.

    A row whose nearest chosen row is at distance m keeps it if the new one is 2 m or more away from that one, by the
    triangle inequality, or if the distance from a product is larger beyond rounding. All others are computed as
    anomalib's ``KCenterGreedy`` computes them.

    Parameters
    ----------
    features : Tensor, (n, d) float32
        Rows to choose from.
    count : int
        Number of rows to choose, 1 to n.
    first : int
        Row chosen first.

    Returns
    -------
    list of int
        Chosen rows, in turn; rows at distance 0 of chosen ones may repeat.
    """
    chosen = [first]
    nearest = _distances(features, features[first])
    nearest[first] = 0
    owner = torch.zeros(len(features), dtype=torch.long)
    centres = torch.empty(count, features.shape[1])
    centres[0] = features[first]
    centred = features - features.mean(dim=0)
    squares = centred.square().sum(dim=1)
    for k in range(1, count):
        new = int(nearest.argmax())
        far = _distances(centres[:k], features[new])
        open_ = nearest > far[owner] * (0.5 - SLACK)
        if open_.float().mean() > FEW:
            about = squares + squares[new] - 2 * (centred @ centred[new])
            open_ &= about < nearest.square() + SLACK * (squares + squares[new])
        rows = torch.nonzero(open_).squeeze(1)
        found = _distances(features[rows], features[new])
        closer = found < nearest[rows]
        nearest[rows[closer]], owner[rows[closer]] = found[closer], k
        nearest[new], owner[new], centres[k] = 0, k, features[new]
        chosen.append(new)
    return chosen


def _distances(rows: Tensor, centre: Tensor) -> Tensor:
    found: Tensor = torch.linalg.norm(rows - centre, ord=2, dim=1)
    return found
