"""Picture for tests of the runtime."""

from __future__ import annotations

import numpy as np


def picture(height: int = 24, width: int = 36, seed: int = 0) -> np.ndarray:
    """Give a smooth RGB picture without symmetries."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(0.5, 1.5, 3)
    channels = [y * a * 255 / (2 * height), x * b * 255 / (2 * width), (x + 2 * y) * c % 256]
    return np.stack(channels, axis=2).clip(0, 255).astype(np.uint8)
