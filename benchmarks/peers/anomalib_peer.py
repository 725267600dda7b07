"""Fit and score one image set with anomalib, and save its raw scores, maps and timings.

Runs in an environment of its own (``requirements-anomalib.txt``), one measurement a process, so
that peak memory belongs to that measurement alone. Nothing is downloaded: the backbone's weights
come from a file.

Two runners do the same work on the same model:

``engine``
    What a user of anomalib runs: ``Engine.fit`` and ``Engine.predict`` on its ``Folder``
    datamodule. Checkpoints, logging and progress bars (``barebones``) as well as post-processing,
    evaluation and pictures are off, so that scores stay raw and only the method is timed.
``loop``
    The plain torch model under a loop over the same dataloaders, without Lightning. Its difference
    from ``engine`` is what the engine costs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib_model import (
    AUTOCAST,
    BACKBONE,
    LAYERS,
    NORMALIZATIONS,
    PACKAGES,
    Model,
    build_data,
    build_model,
    clocks,
    peak_mb,
)
from lightning.pytorch import seed_everything


@dataclass
class Scores:
    """Raw results, in the order in which the images were scored."""

    paths: list[str] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    maps: list[np.ndarray] = field(default_factory=list)

    def add(self, paths: list[str], scores: torch.Tensor, maps: torch.Tensor) -> None:
        """Append one batch.

        Parameters
        ----------
        paths : list of str
            Image files.
        scores : torch.Tensor
            Image scores, one a file.
        maps : torch.Tensor
            Anomaly maps, shape ``(batch, 1, height, width)`` or without the second axis.
        """
        self.paths += paths
        self.scores.append(scores.float().reshape(len(paths)).cpu().numpy())
        self.maps.append(maps.float().reshape(len(paths), *maps.shape[-2:]).cpu().numpy())


def engine_fit(model: Model, data: Folder, root: Path) -> None:
    """Fit through anomalib's engine.

    Parameters
    ----------
    model : Padim or Patchcore
        Model to fit, in float32.
    data : anomalib.data.Folder
        Images.
    root : pathlib.Path
        Folder in which the engine makes its empty result folders.
    """
    new_engine(root).fit(model=model, datamodule=data)


def engine_score(model: Model, data: Folder, root: Path, precision: str) -> Scores:
    """Score all test images through anomalib's engine.

    Parameters
    ----------
    model : Padim or Patchcore
        Fitted model.
    data : anomalib.data.Folder
        Images.
    root : pathlib.Path
        Folder in which the engine makes its empty result folders.
    precision : {"float32", "bfloat16"}
        Precision of the forward pass; ``bfloat16`` is autocast.

    Returns
    -------
    Scores
        Raw results.
    """
    batches = new_engine(root, precision).predict(model=model, datamodule=data)
    result = Scores()
    for batch in batches or []:
        result.add(batch.image_path, batch.pred_score, batch.anomaly_map)
    return result


def new_engine(root: Path, precision: str = "float32") -> Engine:
    """Return an engine that runs on the CPU and writes nothing.

    Parameters
    ----------
    root : pathlib.Path
        Folder in which the engine makes its empty result folders.
    precision : {"float32", "bfloat16"}, default "float32"
        Precision of the forward pass.

    Returns
    -------
    anomalib.engine.Engine
        New engine.
    """
    return Engine(
        default_root_dir=root,
        accelerator="cpu",
        devices=1,
        barebones=True,
        # Without a validation set the datamodule has no loader for one, but the trainer asks.
        limit_val_batches=0,
        precision=AUTOCAST[precision],
    )


def loop_fit(model: Model, data: Folder) -> None:
    """Fit the torch model in a plain loop.

    Parameters
    ----------
    model : Padim or Patchcore
        Model to fit, in float32.
    data : anomalib.data.Folder
        Images.
    """
    data.setup()
    model.train()
    with torch.no_grad():
        for batch in data.train_dataloader():
            model.model(model.pre_processor(batch.image))
        model.fit()


def loop_score(model: Model, data: Folder, precision: str) -> Scores:
    """Score all test images with the torch model in a plain loop.

    Parameters
    ----------
    model : Padim or Patchcore
        Fitted model.
    data : anomalib.data.Folder
        Images.
    precision : {"float32", "bfloat16"}
        Precision of the forward pass; ``bfloat16`` is autocast.

    Returns
    -------
    Scores
        Raw results.
    """
    data.setup()
    model.eval()
    half = precision == "bfloat16"
    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if half else nullcontext()
    result = Scores()
    with torch.inference_mode(), autocast:
        for batch in data.test_dataloader():
            found = model.model(model.pre_processor(batch.image))
            result.add(batch.image_path, found.pred_score, found.anomaly_map)
    return result


def measure(model: Model, data: Folder, args: argparse.Namespace) -> tuple[Scores, dict[str, Any]]:
    """Fit and score, both from files, and time them.

    Parameters
    ----------
    model : Padim or Patchcore
        Unfitted model.
    data : anomalib.data.Folder
        Images.
    args : argparse.Namespace
        Command line.

    Returns
    -------
    scores : Scores
        Raw results.
    figures : dict
        Seconds, images a second and megabytes.
    """
    before, start = peak_mb(), clocks()
    # The engine makes result folders even where it writes nothing into them.
    with TemporaryDirectory() as scratch:
        if args.runner == "engine":
            engine_fit(model, data, Path(scratch))
        else:
            loop_fit(model, data)
        fit_peak, fitted = peak_mb(), clocks()
        if args.runner == "engine":
            result = engine_score(model, data, Path(scratch), args.precision)
        else:
            result = loop_score(model, data, args.precision)
        scored = clocks()
    fit, score = fitted - start, scored - fitted
    return result, {
        "fit_seconds": round(fit[0], 3),
        "fit_cpu_seconds": round(fit[1], 3),
        "score_seconds": round(score[0], 3),
        "score_cpu_seconds": round(score[1], 3),
        "images_per_second": round(len(result.paths) / score[0], 2),
        "load_average": os.getloadavg()[0],
        "rss_before_fit_mb": round(before, 1),
        "peak_rss_fit_mb": round(fit_peak, 1),
        "peak_rss_mb": round(peak_mb(), 1),
    }


def describe_model(model: Model, name: str, coreset: float) -> dict[str, Any]:
    """Describe what was fitted.

    Parameters
    ----------
    model : Padim or Patchcore
        Fitted model.
    name : {"padim", "patchcore"}
        Method.
    coreset : float
        PatchCore's coreset sampling ratio.

    Returns
    -------
    dict
        Layers, numbers of channels and, for PatchCore, the coreset's size.
    """
    total = sum(model.model.feature_extractor.out_dims)
    facts: dict[str, Any] = {
        "backbone": BACKBONE,
        "layers": list(LAYERS[name]),
        "channels_total": total,
        "channels": len(model.model.idx) if name == "padim" else total,
        "coreset_ratio": None if name == "padim" else coreset,
    }
    if name == "patchcore":
        facts["coreset_items"] = int(model.model.memory_bank.shape[0])
        facts["num_neighbors"] = model.model.num_neighbors
    return facts


def describe_run(args: argparse.Namespace) -> dict[str, Any]:
    """Describe the machine and the settings of this run.

    Parameters
    ----------
    args : argparse.Namespace
        Command line.

    Returns
    -------
    dict
        Settings and versions.
    """
    return {
        "model": args.model,
        "set": args.folder.name,
        "runner": args.runner,
        "fit_precision": "float32",
        "precision": args.precision,
        "image_size": args.size,
        "normalization": args.normalization,
        "batch_size": args.batch,
        "threads": torch.get_num_threads(),
        "workers": args.workers,
        "cpu_count": os.cpu_count(),
        "seed": args.seed,
        "weights_sha256": hashlib.sha256(args.weights.read_bytes()).hexdigest(),
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def stack_maps(maps: list[np.ndarray]) -> np.ndarray:
    """Join the maps, as float16 unless that would overflow.

    Parameters
    ----------
    maps : list of numpy.ndarray
        Batches of float32 maps.

    Returns
    -------
    numpy.ndarray
        Shape ``(images, height, width)``.
    """
    joined = np.concatenate(maps)
    fits = float(np.abs(joined).max()) < float(np.finfo(np.float16).max)
    return joined.astype(np.float16) if fits else joined


def save(out: Path, stem: str, folder: Path, result: Scores, facts: dict[str, Any]) -> None:
    """Write the raw results and the figures.

    Parameters
    ----------
    out : pathlib.Path
        Folder to write to.
    stem : str
        Name of both files, without suffix.
    folder : pathlib.Path
        Image folder; paths are stored relative to it.
    result : Scores
        Raw results.
    facts : dict
        Content of the JSON file.
    """
    out.mkdir(parents=True, exist_ok=True)
    np.savez(
        out / f"{stem}.npz",
        paths=np.array([Path(path).relative_to(folder).as_posix() for path in result.paths]),
        scores=np.concatenate(result.scores).astype(np.float32),
        maps=stack_maps(result.maps),
    )
    (out / f"{stem}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def parse_args() -> argparse.Namespace:
    """Read the command line.

    Returns
    -------
    argparse.Namespace
        Options, with absolute paths.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="folder with train/good and test/<type>")
    parser.add_argument("--model", choices=sorted(LAYERS), required=True)
    parser.add_argument("--weights", type=Path, required=True, help="state dict, timm's names")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--name", help="stem of the result files (default: SET-MODEL)")
    parser.add_argument("--runner", choices=("engine", "loop"), default="engine")
    parser.add_argument("--precision", choices=sorted(AUTOCAST), default="float32", help="scoring")
    parser.add_argument("--channels", nargs="+", type=int, help="PaDiM's, counted through the layers; default: drawn")
    parser.add_argument("--coreset", type=float, default=0.001, help="PatchCore's sampling ratio")
    parser.add_argument("--normalization", choices=sorted(NORMALIZATIONS), default="lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="processes that decode images")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder, args.out = args.folder.resolve(), args.out.resolve()
    return args


def main() -> None:
    """Run one measurement."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    seed_everything(args.seed, verbose=False)
    start = time.perf_counter()
    model = build_model(args)
    data = build_data(args.folder, args.size, args.batch, args.workers, args.seed)
    build = round(time.perf_counter() - start, 3)
    result, figures = measure(model, data, args)
    facts = describe_run(args) | describe_model(model, args.model, args.coreset)
    facts |= {"n_train": len(data.train_data), "n_test": len(result.paths)}
    facts |= {"build_seconds": build} | figures
    save(args.out, args.name or f"{args.folder.name}-{args.model}", args.folder, result, facts)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
