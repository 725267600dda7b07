"""Names of backbones, and the feature maps that each family of them offers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import timm
import torch
from torch import nn

from anomem.errors import ParameterError, nearest

__all__ = [
    "ALIASES",
    "DEFAULT_BACKBONE",
    "architecture",
    "layer_name",
    "maps_of",
    "own_stages",
    "stride_of",
    "timm_name",
]

DEFAULT_BACKBONE = "tf_efficientnet_lite0"

ALIASES = {
    "lite0": "tf_efficientnet_lite0",
    "lite1": "tf_efficientnet_lite1",
    "lite2": "tf_efficientnet_lite2",
    "mobilenetv4_small": "mobilenetv4_conv_small",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin_small": "swin_small_patch4_window7_224",
    "swin_base": "swin_base_patch4_window7_224",
    "dinov2_small": "vit_small_patch14_dinov2",
    "dinov2_base": "vit_base_patch14_dinov2",
    "dinov2_large": "vit_large_patch14_dinov2",
    "dinov2_reg_small": "vit_small_patch14_reg4_dinov2",
    "dinov2_reg_base": "vit_base_patch14_reg4_dinov2",
    "dinov2_reg_large": "vit_large_patch14_reg4_dinov2",
    "dinov3_small": "vit_small_patch16_dinov3",
    "dinov3_base": "vit_base_patch16_dinov3",
    "dinov3_large": "vit_large_patch16_dinov3",
    "dinov3_convnext_tiny": "convnext_tiny.dinov3_lvd1689m",
    "dinov3_convnext_small": "convnext_small.dinov3_lvd1689m",
    "siglip_base": "vit_base_patch16_siglip_224",
    "siglip_large": "vit_large_patch16_siglip_256",
    "eva02_tiny": "eva02_tiny_patch14_224",
    "eva02_small": "eva02_small_patch14_224",
    "eva02_base": "eva02_base_patch14_224",
}
"""Short names of common backbones, and timm's names for them."""

_STRIDES = {"stride4": 4, "stride8": 8, "stride16": 16, "stride32": 32}
"""Names of stages by stride, pixels of the input per position of the map."""

_DEFAULTS: dict[int | str, str] = {1: "stride4", 2: "stride8", 3: "stride16", 4: "stride32", "blocks.5": "stride32"}
"""Strides of the default backbone's maps, of those that methods take."""


def timm_name(name: str) -> str:
    """Return timm's name of a model, given that name, with or without a tag, or an alias.

    Raises
    ------
    ParameterError
        For names of no timm model, "hf-hub:..." too: loading a model file must not download anything.
    """
    name = ALIASES.get(name, name)
    if timm.is_model(name):
        return name
    near = nearest(name, [*ALIASES, *timm.list_models()])
    hint = f"did you mean {near}?" if near else "list them with timm.list_models()"
    raise ParameterError(f"backbone={name!r} is not a timm model; {hint}")


def architecture(name: str) -> str:
    """Return a timm name without its tag."""
    return name.partition(".")[0]


@cache
def stride_of(name: str) -> int:
    """Return the side of one position of a model's coarsest feature map, in pixels of its input."""
    with torch.device("meta"):  # Neither memory nor random numbers are used.
        model = timm.create_model(timm_name(name), pretrained=False, num_classes=0)
    return max(int(entry["reduction"]) for entry in maps_of(model))


def maps_of(model: nn.Module) -> list[dict[str, Any]]:
    """Return timm's facts of every feature map of a model, in order."""
    info: Any = model.feature_info
    return list(getattr(info, "info", info))


def own_stages(
    name: str, stages: Sequence[int | str], default: Sequence[int | str], made_for: str = DEFAULT_BACKBONE
) -> list[int | str]:
    """Return stages that suit a backbone: those given, or its own where those given are a default made for another.

    Parameters
    ----------
    name : str
        Backbone.
    stages : sequence of int or str
        Stages as a user or a default gives them.
    default : sequence of int or str
        The default.
    made_for : str
        Backbone that the default is made for.

    Returns
    -------
    list of int or str
        Stages for :class:`~anomem.nn.backbones.Backbone`.

    Examples
    --------
    >>> own_stages("swin_tiny", (1, 2, 3), default=(1, 2, 3))
    ['stride4', 'stride8', 'stride16']
    >>> own_stages("swin_tiny", (0, 1), default=(1, 2, 3))
    [0, 1]
    """
    if ALIASES.get(name, name) == made_for or tuple(stages) != tuple(default):
        return list(stages)
    return [_DEFAULTS.get(stage, stage) for stage in stages]


def layer_name(model: nn.Module, name: str, stage: int | str) -> str:
    """Return the layer that a stage names: one of timm's ``out_indices``, a stride, or the layer itself.

    Raises
    ------
    ParameterError
        If the model has no such map or layer.
    """
    maps = maps_of(model)
    names = [str(entry["module"]) for entry in maps]
    if isinstance(stage, int):
        if not -len(names) <= stage < len(names):
            raise ParameterError(f"stages: {stage} is not allowed for {name}; expected an index below {len(names)}")
        return names[stage]
    if stage in _STRIDES:
        return names[_nearest_stride([int(entry["reduction"]) for entry in maps], _STRIDES[stage])]
    if stage not in dict(model.named_modules()):
        raise ParameterError(f"stages: {name} has no layer {stage!r}; stages by number: {', '.join(names)}")
    return stage


def _nearest_stride(reductions: Sequence[int], wanted: int) -> int:
    """Return the index of the last map of a stride, or of the nearest one below it, else of the first map.

    Plain transformers have one stride in all their blocks: a quarter, half, three quarters and the whole of their depth
    stand for strides 4, 8, 16 and 32.
    """
    if len(set(reductions)) == 1 and len(reductions) >= len(_STRIDES):
        quarter = list(_STRIDES.values()).index(wanted) + 1
        return -(-quarter * len(reductions) // len(_STRIDES)) - 1
    fine = [index for index, reduction in enumerate(reductions) if reduction <= wanted]
    return fine[-1] if fine else 0
