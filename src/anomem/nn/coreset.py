"""Prototypes that cover the normal features, edge cases included."""

from __future__ import annotations

import torch
from torch import Tensor

LOOKAHEAD = 64
"""Candidates whose distances are computed in one product; the choice does not depend on it."""


@torch.no_grad()
def farthest_first(vectors: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose `k` of the vectors so that every vector is near a chosen one: greedy k-centre (Gonzalez 1985).

    Each choice is the vector farthest from all chosen so far, so that rare normal features get a prototype of their
    own, which centres of k-means average away.

    Parameters
    ----------
    vectors : Tensor, (M, C), float32
    k : int
        At most M are chosen.
    generator : torch.Generator
        Draws the first, on the CPU.

    Returns
    -------
    Tensor, (min(k, M), C)
        In the order of their choice.

    Examples
    --------
    >>> line = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    >>> farthest_first(line, 2, torch.Generator().manual_seed(0))[1]
    tensor([10.])
    """
    count = min(k, len(vectors))
    # Half the bytes to stream for each product; the order of distances hardly changes, and real vectors are returned.
    stored = vectors.to(torch.bfloat16) if vectors.device.type == "cpu" and len(vectors) > 1024 else vectors
    squared = stored.float().square().sum(dim=1)
    nearest = torch.full_like(squared, torch.inf)
    last = int(torch.randint(len(vectors), (1,), generator=generator))
    candidates = torch.tensor([last], device=vectors.device)
    chosen = [last]
    while True:
        # The next choices are mostly among those now farthest, so that many rows of distances come from one product.
        rows = squared + squared[candidates, None] - 2 * (stored[candidates] @ stored.T).float()
        where = {index: row for row, index in enumerate(candidates.tolist())}
        while last in where:
            torch.minimum(nearest, rows[where[last]], out=nearest)
            nearest[last] = -torch.inf
            if len(chosen) == count:
                return vectors[chosen]
            last = int(nearest.argmax())
            chosen.append(last)
        candidates = nearest.topk(min(LOOKAHEAD, len(nearest))).indices
