"""Maps of transformers and other models whose layers pass on tokens, not feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from anomem.errors import ParameterError
from anomem.nn.families import maps_of

__all__ = ["RESIZABLE", "TokenMaps", "passes_tokens"]

RESIZABLE = frozenset(
    {
        "deit",
        "eva",
        "swin_transformer",
        "swin_transformer_v2",
        "swin_transformer_v2_cr",
        "vision_transformer",
        "vision_transformer_hybrid",
    }
)
"""timm's modules whose models take inputs of any size: position grids are resampled, window masks made anew."""

_TOKENS = frozenset({"coat", "crossvit", "efficientformer", "efficientvim", "hiera", "levit", "mlp_mixer"})
"""timm's modules whose models pass on tokens, without saying so in an attribute."""


def passes_tokens(model: nn.Module) -> bool:
    """Return True for a model whose layers give tokens (B, N, C) or maps (B, h, w, C)."""
    if getattr(model, "num_prefix_tokens", None) is not None or getattr(model, "output_fmt", "NCHW") != "NCHW":
        return True
    return type(model).__module__.rpartition(".")[2] in _TOKENS


class TokenMaps(nn.Module):
    """timm model up to its last wanted block, its tokens arranged as maps.

    Class and register tokens are left out of the maps.

    Parameters
    ----------
    model : Module
        Whole timm model, without classifier; it is cut in place.
    layers : sequence of str
        Wanted layers, of those in its ``feature_info``.
    embedding : str or None
        Key of the pooled embedding in the result; None: none. It is the class token where the model has one, behind its
        last normalisation, else the model's own pooled output.
    name : str
        Name of the model, for messages.

    Raises
    ------
    ParameterError
        For a layer whose output timm does not offer.
    """

    def __init__(self, model: Any, layers: Sequence[str], embedding: str | None, name: str) -> None:
        super().__init__()
        offered = [str(entry["module"]) for entry in maps_of(model)]
        unknown = [layer for layer in layers if layer not in offered]
        if unknown:
            raise ParameterError(f"backbone={name!r} cannot be cut at {unknown}; its maps: {', '.join(offered)}")
        self.layers = sorted({*layers}, key=offered.index)
        self.indices = [offered.index(layer) for layer in self.layers]
        self.embedding = embedding
        if embedding is None:
            model.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        resizable = getattr(model, "dynamic_img_size", False)
        self.patch: tuple[int, int] | None = tuple(model.patch_embed.patch_size) if resizable else None
        self.timm = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps (B, C, h, w) of normalised images (B, 3, H, W) by layer, and the embedding (B, D)."""
        images = self._fitted(images)
        if self.embedding is None:
            maps = self.timm.forward_intermediates(images, indices=self.indices, intermediates_only=True)
            return dict(zip(self.layers, maps, strict=True))
        last, maps = self.timm.forward_intermediates(images, indices=self.indices)
        return dict(zip(self.layers, maps, strict=True)) | {self.embedding: self._embedding(last)}

    def called(self) -> list[str]:
        """Return the names of the layers in order of computation, blocks of a sequence one by one."""
        names: list[str] = []
        for name, child in self.timm.named_children():
            parts = isinstance(child, nn.Sequential | nn.ModuleList)
            names += [f"{name}.{part}" for part, _ in child.named_children()] if parts else [name]
        return names

    def fix_positions(self, hw: tuple[int, int]) -> None:
        """Resample the grid of positions for inputs of H x W pixels, in place, before the model is exported.

        Runtimes resample it each in their own way.
        """
        if self.patch is not None and getattr(self.timm, "pos_embed", None) is not None:
            self.timm.set_input_size(img_size=self._whole(hw))

    def _fitted(self, images: Tensor) -> Tensor:
        """Resize images to whole patches: a patch cut off, or padded, would shift the map against the image."""
        hw = (images.shape[2], images.shape[3])
        whole = self._whole(hw)
        return images if whole == hw else F.interpolate(images, size=whole, mode="bilinear", align_corners=False)

    def _whole(self, hw: tuple[int, int]) -> tuple[int, int]:
        """Return the nearest height and width of whole patches."""
        if self.patch is None:
            return hw
        height, width = (max(1, round(side / patch)) * patch for side, patch in zip(hw, self.patch, strict=True))
        return height, width

    def _embedding(self, last: Tensor) -> Tensor:
        if getattr(self.timm, "cls_token", None) is None or last.ndim != 3:
            pooled: Tensor = self.timm.forward_head(last, pre_logits=True)
            return pooled
        token = last[:, 0].clone()  # Not a part of the tokens' memory.
        norm: Any = getattr(self.timm, "fc_norm", None)
        return token if norm is None else norm(token)
