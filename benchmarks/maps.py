"""Judge scores and maps computed outside a detector."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from anomem.data.labelled_images import Images
from anomem.metrics import PixelScores, auroc
from anomem.types import ANOMALOUS


def judged(scores: Tensor, maps: Tensor, test: Images) -> dict[str, float]:
    """Return image AUROC of scores (N,) and, where the set has masks, pixel AUROC and AUPRO of maps (N, h, w)."""
    found = {"image AUROC": auroc(scores.numpy(), test.labels)}
    if not test.masks:
        return found
    pixels = PixelScores()
    for i, map_ in enumerate(maps):
        height, width, _ = test.source.load(i).shape
        full = F.interpolate(map_[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
        mask = test.mask(i, (height, width)) if test.labels[i] == ANOMALOUS else np.zeros((height, width), bool)
        if mask is not None:
            pixels.add(full, np.asarray(mask, dtype=bool))
    return found | {"pixel AUROC": pixels.auroc(), "AUPRO": pixels.aupro()}
