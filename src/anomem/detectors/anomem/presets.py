"""Settings of AnoMem by preset."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "surface": {
        "size": 224,
        "stages": (1, 2, 3, 3, "blocks.5", "blocks.5"),
        "embedding": False,
        "neighbourhood": (3, 3, 3, 1, 3, 1),
        "memory_size": (2048,),
        "memory_share": 8,
        "seeding": "farthest",
        "normalise": "whiten",
        "whitening": 1.0,
        "shrinkage": 0.03,
        "position_mean": True,
        "max_grid": (28,),
        "beta": "hard",
        "scale_weights": (1.0, 1.0, 0.5, 0.5, 0.25, 0.25),
        "reduction": "top",
        "standardise": "position",
        "heads": ("spread", "signed", "top", "peak"),
        "label_cap": 0.8,
    },
    "object": {
        "size": 160,
        "stages": (4, 4),
        "embedding": True,
        "neighbourhood": (1,),
        "memory_size": (256,),
        "memory_share": 1,
        "seeding": "kmeans",
        "normalise": "whiten",
        "whitening": 0.5,
        "shrinkage": 0.3,
        "position_mean": False,
        "max_grid": (28, 1, 1),
        "beta": 16.0,
        "scale_weights": (1.0,),
        "reduction": "l2",
        "standardise": "scale",
        "heads": ("pooled",),
        "label_cap": 0.4,
    },
}
