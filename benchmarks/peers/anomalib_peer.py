"""Fit and score one image set with anomalib, and save its raw scores, maps and timings.

Runs in a separate environment (``requirements-anomalib.txt``), one measurement per process, so
that peak memory is that of the measurement alone. Nothing is downloaded: the backbone's weights
come from a file.

Two runners do the same work on the same model:

``engine``
    Standard use of anomalib: ``Engine.fit`` and ``Engine.predict`` on its ``Folder``
    datamodule. Checkpoints, logging and progress bars (``barebones``) as well as post-processing,
    evaluation and pictures are off, so that scores stay raw and only the method is timed.
``loop``
    The torch model in a plain loop over the same dataloaders, without Lightning. Its difference
    from ``engine`` is the engine's overhead. For PaDiM and PatchCore alone.

STFPM, FastFlow and SuperSimpleNet are trained, with anomalib's optimisers, rates and schedules, for ``--steps`` steps,
rounded to whole epochs.
"""

from __future__ import annotations

import argparse
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
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
    TRAINED,
    Model,
    backbone_of,
    build_data,
    build_model,
    check_weights,
    pruned_sampler,
)
from lightning.pytorch import seed_everything
from outcome import Watch, describe, options, parsed, save


@dataclass
class Scores:
    """Raw results, in scoring order."""

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
            Image scores, one per file.
        maps : torch.Tensor
            Anomaly maps, shape ``(batch, 1, height, width)`` or without the second axis.
        """
        self.paths += paths
        self.scores.append(scores.float().reshape(len(paths)).cpu().numpy())
        self.maps.append(maps.float().reshape(len(paths), *maps.shape[-2:]).cpu().numpy())


def engine_fit(model: Model, data: Folder, root: Path, epochs: int | None) -> int:
    """Fit through anomalib's engine.

    Parameters
    ----------
    model : Model
        Model to fit, in float32.
    data : anomalib.data.Folder
        Images.
    root : pathlib.Path
        Folder for the engine's empty result folders.
    epochs : int or None
        Training epochs; None: the model's default.

    Returns
    -------
    int
        Optimiser steps.
    """
    engine = new_engine(root, epochs=epochs)
    engine.fit(model=model, datamodule=data)
    return int(engine.trainer.global_step)


def engine_score(model: Model, data: Folder, root: Path, precision: str) -> Scores:
    """Score all test images through anomalib's engine.

    Parameters
    ----------
    model : Model
        Fitted model.
    data : anomalib.data.Folder
        Images.
    root : pathlib.Path
        Folder for the engine's empty result folders.
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


def new_engine(root: Path, precision: str = "float32", epochs: int | None = None) -> Engine:
    """Return an engine that runs on the CPU and writes nothing.

    Parameters
    ----------
    root : pathlib.Path
        Folder for the engine's empty result folders.
    precision : {"float32", "bfloat16"}, default "float32"
        Precision of the forward pass.
    epochs : int, optional
        Epochs of a trained model.

    Returns
    -------
    anomalib.engine.Engine
        New engine.
    """
    trained = {} if epochs is None else {"max_epochs": epochs}
    return Engine(
        default_root_dir=root,
        accelerator="cpu",
        devices=1,
        barebones=True,
        # The trainer requests a validation loader, which a datamodule without validation set lacks.
        limit_val_batches=0,
        precision=AUTOCAST[precision],
        **trained,
    )


def loop_fit(model: Model, data: Folder) -> None:
    """Fit the torch model in a plain loop.

    Parameters
    ----------
    model : Model
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
    model : Model
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
    """Fit and score from files, and time both.

    Parameters
    ----------
    model : Model
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
        Training steps, seconds, images per second and megabytes.
    """
    epochs, steps = training_epochs(args), 0
    watch = Watch()
    # The engine creates result folders even if they stay empty.
    with TemporaryDirectory() as scratch:
        with pruned_sampler() if args.sampler == "pruned" else nullcontext():
            if args.runner == "engine":
                steps = engine_fit(model, data, Path(scratch), epochs)
            else:
                loop_fit(model, data)
        watch.fitted()
        if args.runner == "engine":
            result = engine_score(model, data, Path(scratch), args.precision)
        else:
            result = loop_score(model, data, args.precision)
        figures = watch.figures(len(result.paths))
    budget = {} if epochs is None else {"epochs": epochs, "steps": steps}
    return result, budget | figures


def training_epochs(args: argparse.Namespace) -> int | None:
    """Convert the step budget to epochs, the unit of anomalib's schedules.

    Parameters
    ----------
    args : argparse.Namespace
        Command line.

    Returns
    -------
    int or None
        Number of epochs closest to ``--steps``, at least 1; None for a model that is not trained.
    """
    if args.model not in TRAINED:
        return None
    images = sum(path.is_file() for path in (args.folder / "train" / "good").iterdir())
    epochs: int = max(1, round(args.steps / math.ceil(images / args.batch)))
    return epochs


def describe_model(model: Model, args: argparse.Namespace) -> dict[str, Any]:
    """Describe the fitted model.

    Parameters
    ----------
    model : Model
        Fitted model.
    args : argparse.Namespace
        Command line.

    Returns
    -------
    dict
        Layers, channel counts and, for PatchCore, the coreset's size.
    """
    total = sum(backbone_of(model).feature_info.channels())
    facts: dict[str, Any] = {
        "backbone": BACKBONE,
        "layers": list(LAYERS[args.model]),
        "channels_total": total,
        "channels": len(model.model.idx) if args.model == "padim" else total,
        "coreset_ratio": None,
    }
    if args.model == "patchcore":
        facts["coreset_ratio"], facts["sampler"] = args.coreset, args.sampler
        facts["coreset_items"] = int(model.model.memory_bank.shape[0])
        facts["num_neighbors"] = model.model.num_neighbors
    return facts


def parse_args() -> argparse.Namespace:
    """Read the command line.

    Returns
    -------
    argparse.Namespace
        Options, with absolute paths.
    """
    parser = options(__doc__, LAYERS)
    parser.add_argument("--weights", type=Path, required=True, help="state dict, timm's names")
    parser.add_argument("--runner", choices=("engine", "loop"), default="engine")
    parser.add_argument("--precision", choices=sorted(AUTOCAST), default="float32", help="scoring")
    parser.add_argument("--channels", nargs="+", type=int, help="PaDiM's, counted through the layers; default: drawn")
    parser.add_argument("--coreset", type=float, default=0.001, help="PatchCore's sampling ratio")
    parser.add_argument(
        "--sampler", choices=("own", "pruned"), default="own", help="PatchCore's: anomalib's, or its picks found sooner"
    )
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps of trained models")
    parser.add_argument("--normalization", choices=sorted(NORMALIZATIONS), default="lite0")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode images")
    parser.add_argument("--export", type=Path, help="also write the fitted model here, traced (.pt2)")
    args = parsed(parser)
    if args.runner == "loop" and args.model in TRAINED:
        parser.error(f"--runner loop: {args.model} needs the engine; use --runner engine")
    return args


class Exported(torch.nn.Module):
    """Model whose output is a plain tuple, as export requires.

    Parameters
    ----------
    model : Model
        Fitted model.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Score images (B, 3, S, S) from 0 to 1: scores, and maps."""
        found = self.model(image)
        return found.pred_score, found.anomaly_map


def write_traced(model: Model, file: Path, size: int) -> None:
    """Trace a model as anomalib's ``to_onnx`` does, with fixed side and free batch size, and save the program.

    Parameters
    ----------
    model : Model
        Fitted model.
    file : pathlib.Path
        File to write; another environment with openvino converts it to an IR.
    size : int
        Side of the square input.
    """
    shapes = ({0: torch.export.Dim("batch_size", min=1)},)
    with torch.no_grad():  # as inside the model: switching it in between would add an operator
        program = torch.export.export(Exported(model).eval(), (torch.rand(2, 3, size, size),), dynamic_shapes=shapes)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, file)


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
    check_weights(model, args.weights)
    if args.export is not None:
        write_traced(model, args.export, args.size)
    facts = describe(args, PACKAGES) | describe_model(model, args)
    facts |= {"runner": args.runner, "fit_precision": "float32", "precision": args.precision, "workers": args.workers}
    facts |= {"n_train": len(data.train_data), "n_test": len(result.paths)}
    facts |= {"build_seconds": build} | figures
    save(args, result.paths, np.concatenate(result.scores), np.concatenate(result.maps), facts)


if __name__ == "__main__":
    main()
