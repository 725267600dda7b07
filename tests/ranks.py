"""Fits on each rank of torchrun: ``torchrun -m tests.ranks FOLDER METHODS OUT``; the first writes what they learnt."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch

from anomem.data.ranks import is_first
from anomem.detectors import get
from anomem.errors import AnomemError, AnomemWarning

OPTIONS = {"alpha": 0.3, "device": "cpu", "fit_precision": "float32"}
SETTINGS = {
    "anomem": {"size": 64, "stage_one.steps": 3, "stage_one.batch": 6, "stage_one.train_backbone": "last"},
    "anomem-frozen": {"size": 64, "stage_one.steps": 3, "stage_one.batch": 6, "stage_one.train_backbone": "none"},
    "anomem-barlow": {
        "size": 64,
        "stage_one.steps": 3,
        "stage_one.batch": 6,
        "stage_one.train_backbone": "last",
        "stage_one.contrast.base": "barlow",
        # The last scales have fewer vectors than channels, whose whitening magnifies rounding.
        "stages": (1, 2, 3),
        "neighbourhood": (3,),
        "scale_weights": (1.0,),
    },
    "simclr": {"size": 64, "training.steps": 3, "training.batch": 6, "max_items": 30},
    "simclr-scratch": {"preset": "paper", "training.steps": 1, "training.batch": 4, "backbone": "resnet18"},
}


def settings(name: str) -> dict[str, object]:
    kind = get(name.partition("-")[0])
    return {**(SETTINGS.get(name.removesuffix("-half")) or kind.test_params), "seed": 3}


def learnt(folder: Path, name: str) -> dict[str, object]:
    kind = get(name.partition("-")[0])
    paths, defects = sorted(folder.glob("normal/*.png")), sorted(folder.glob("defect/*.png"))
    model = kind(**settings(name))
    options = {**OPTIONS, "batch_size": 8 if name.endswith("-half") else 16}
    try:
        if kind.supervision == "required":
            model.fit([*paths, *defects], [0] * len(paths) + [1] * len(defects), **options)
        else:
            model.fit(paths, **options)
    except AnomemError as error:
        return {"error": str(error)}
    return {
        "scores": model.anomaly_score([*paths[:6], *defects]).tolist() if is_first() else [],
        "calibration": model.calibration_.scores.tolist(),
        "losses": [record.facts["loss"] for record in model.history_ if "loss" in record.facts],
    }


def main(folder: str, names: str, out: str) -> None:
    warnings.simplefilter("ignore", AnomemWarning)
    torch.set_num_threads(1)
    found = {name: learnt(Path(folder), name) for name in names.split(",")}
    if is_first():
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
