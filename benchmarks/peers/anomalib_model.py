"""Model and data of anomalib, set up without downloads and without work other than the method's."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

import timm
import torch
from anomalib.data import Folder
from anomalib.models import Fastflow, Padim, Patchcore, Stfpm, Supersimplenet
from anomalib.models.components import KCenterGreedy
from anomalib.pre_processing import PreProcessor
from coreset import farthest_points
from torchvision.transforms.v2 import Compose, Normalize, Resize

BACKBONE = "tf_efficientnet_lite0"
LAYERS = {
    "padim": ("blocks.1", "blocks.2", "blocks.4"),
    "patchcore": ("blocks.2", "blocks.4"),
    "stfpm": ("blocks.1", "blocks.2", "blocks.4"),
    "fastflow": ("blocks.1", "blocks.2", "blocks.4"),
    "supersimplenet": ("blocks.2", "blocks.4"),
}
TRAINED = ("stfpm", "fastflow", "supersimplenet")
# anomalib's FastFlow supports four backbones by name and takes three maps of this one, at strides 4, 8 and 16.
# Those of EfficientNet-Lite0 at these strides are the layers above.
STAND_IN = "resnet18"
PADIM_CHANNELS = 100
# Mean and deviation of each channel.
NORMALIZATIONS = {
    "lite0": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # x / 127.5 - 1, as these weights were trained
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # anomalib's default
}
AUTOCAST = {"float32": "32-true", "bfloat16": "bf16-mixed"}
PACKAGES = ("anomalib", "torch", "torchvision", "timm", "lightning", "numpy")

Model: TypeAlias = Padim | Patchcore | Stfpm | Fastflow | Supersimplenet


@contextmanager
def local_weights(file: Path) -> Iterator[None]:
    """Make anomalib's feature extractor load pretrained weights from `file`.

    anomalib calls ``timm.create_model`` without a way to name a file. Within this context the call
    gets timm's own ``pretrained_cfg_overlay``; timm then loads with ``weights_only=True``. Where a
    model requires `STAND_IN`, the call still makes the backbone of this comparison.

    Parameters
    ----------
    file : pathlib.Path
        State dict in timm's naming.

    Yields
    ------
    None
        While ``timm.create_model`` is patched.
    """
    original = timm.create_model

    def create_model(name: str, **kwargs: Any) -> Any:
        if kwargs.get("pretrained"):
            kwargs["pretrained_cfg_overlay"] = {"file": str(file)}
        return original(BACKBONE if name == STAND_IN else name, **kwargs)

    with patch.object(timm, "create_model", create_model):
        yield


@contextmanager
def pruned_sampler() -> Iterator[None]:
    """Make PatchCore's sampler leave out distances that cannot change its picks.

    Projection and first pick are drawn as anomalib draws them, so that seeds give the same coresets.

    Yields
    ------
    None
        While ``KCenterGreedy.select_coreset_idxs`` is patched.
    """

    def select(sampler: KCenterGreedy) -> list[int]:
        sampler.model.fit(sampler.embedding)
        features = sampler.model.transform(sampler.embedding)
        first = torch.randint(high=sampler.n_observations, size=(1,), device=features.device)
        return farthest_points(features, sampler.coreset_size, int(first))

    with patch.object(KCenterGreedy, "select_coreset_idxs", select):
        yield


def backbone_of(model: Model) -> Any:
    """Return the frozen backbone, or the part of it up to the last layer that the model uses.

    Parameters
    ----------
    model : Model
        anomalib's model.

    Returns
    -------
    torch.nn.Module
        Backbone made by timm, with its ``feature_info``.
    """
    found = model.model.teacher_model if isinstance(model, Stfpm) else model.model.feature_extractor
    while hasattr(found, "feature_extractor"):
        found = found.feature_extractor
    return found


def check_weights(model: Model, file: Path) -> None:
    """Raise unless the backbone has exactly the tensors of `file`.

    A backbone with random or changed values would also score, only worse, so a run without errors
    is no proof.

    Parameters
    ----------
    model : Model
        Model whose backbone is checked.
    file : pathlib.Path
        State dict in timm's naming.

    Raises
    ------
    RuntimeError
        If a tensor of the backbone is not in the file or differs from it.
    """
    state = torch.load(file, map_location="cpu", weights_only=True)
    for name, value in backbone_of(model).state_dict().items():
        if name not in state or not torch.equal(value.cpu(), state[name]):
            raise RuntimeError(f"{file}: does not have backbone tensor {name}; give the weights of this backbone")


def build_model(args: argparse.Namespace) -> Model:
    """Build anomalib's model on local weights, without steps that change its raw scores.

    Parameters
    ----------
    args : argparse.Namespace
        Command line.

    Returns
    -------
    Model
        Unfitted model; what the method learns is drawn from torch's generator.
    """
    mean, std = NORMALIZATIONS[args.normalization]
    steps = Compose([resizing(args.size), Normalize(mean=list(mean), std=list(std))])
    common: dict[str, Any] = {
        "pre_processor": PreProcessor(steps),
        "post_processor": False,
        "evaluator": False,
        "visualizer": False,
    }
    with local_weights(args.weights):
        model = _built(args, common)
    check_weights(model, args.weights)
    return model


def _built(args: argparse.Namespace, common: dict[str, Any]) -> Model:
    if args.model == "fastflow":
        return Fastflow(backbone=STAND_IN, **common)
    common |= {"backbone": BACKBONE, "layers": list(LAYERS[args.model])}
    if args.model == "stfpm":
        return Stfpm(**common)
    if args.model == "supersimplenet":
        return Supersimplenet(**common)
    if args.model == "patchcore":
        return Patchcore(coreset_sampling_ratio=args.coreset, **common)
    model = Padim(n_features=PADIM_CHANNELS if args.channels is None else len(args.channels), **common)
    if args.channels is not None:
        model.model.idx.copy_(torch.tensor(args.channels))
    return model


def resizing(size: int) -> Resize:
    """Return the resize step: bilinear with antialiasing, without crop; the aspect ratio is not kept.

    Parameters
    ----------
    size : int
        Side of the square.

    Returns
    -------
    torchvision.transforms.v2.Resize
        The transform.
    """
    return Resize((size, size), antialias=True)


def build_data(folder: Path, size: int, batch: int, workers: int, seed: int) -> Folder:
    """Describe an MVTec-layout folder to anomalib.

    Masks are left out: the method does not use them, and the caller calculates the metrics.

    Parameters
    ----------
    folder : pathlib.Path
        Folder with ``train/good`` and ``test/<type>``.
    size : int
        Side of the square that images are resized to.
    batch : int
        Batch size.
    workers : int
        Worker processes that decode images.
    seed : int
        Seed of anomalib's splits; unused, as none is made.

    Returns
    -------
    anomalib.data.Folder
        Datamodule over all of train/good and all of test.

    Raises
    ------
    FileNotFoundError
        If ``train/good``, ``test/good`` or any defect folder is missing.
    """
    defects = sorted(d.name for d in (folder / "test").glob("*") if d.is_dir() and d.name != "good")
    if not defects or not (folder / "train/good").is_dir() or not (folder / "test/good").is_dir():
        raise FileNotFoundError(f"{folder}: incomplete layout; add train/good, test/good and test/<defect>")
    return Folder(
        name=folder.name,
        root=folder,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{name}" for name in defects],
        train_batch_size=batch,
        eval_batch_size=batch,
        num_workers=workers,
        # The engine takes this step from the model; the loop has no trainer.
        augmentations=resizing(size),
        # By default anomalib takes half of the test images for validation.
        val_split_mode="none",
        seed=seed,
    )
