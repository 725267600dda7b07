"""Families of backbones with random weights: maps, places, gradients, precision, sizes and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from anomem.errors import ParameterError
from anomem.nn.backbones import Backbone, load_backbone, stride_of
from anomem.nn.families import ALIASES, DEFAULT_BACKBONE, own_stages
from anomem.nn.token_maps import TokenMaps
from anomem.nn.views import unfreeze

LEVELS = ("stride4", "stride8", "stride16", "stride32")
PYRAMID = ((16, 24), (8, 12), (4, 6), (2, 3))
"""Maps of 64 x 96 px at strides 4 to 32."""

FAMILIES: dict[str, tuple[tuple[int, ...], tuple[tuple[int, int], ...], int]] = {
    "resnet18": ((64, 128, 256, 512), PYRAMID, 512),
    "wide_resnet50_2": ((256, 512, 1024, 2048), PYRAMID, 2048),
    "convnext_tiny": ((96, 192, 384, 768), PYRAMID, 768),
    "swin_tiny_patch4_window7_224": ((96, 192, 384, 768), PYRAMID, 768),
    "efficientnet_b0": ((24, 40, 112, 320), PYRAMID, 1280),
    "mobilenetv4_conv_small": ((32, 64, 96, 960), PYRAMID, 1280),
    "vit_small_patch14_dinov2": ((384,) * 4, ((5, 7),) * 4, 384),
    "vit_small_patch14_reg4_dinov2": ((384,) * 4, ((5, 7),) * 4, 384),
    "vit_small_patch16_dinov3": ((384,) * 4, ((4, 6),) * 4, 384),
    "eva02_tiny_patch14_224": ((192,) * 4, ((5, 7),) * 4, 192),
}
"""Channels and sizes of the maps of 64 x 96 px, and length of the embedding."""

TINY = ("test_vit", "test_vit2", "test_vit3", "test_convnext", "test_mambaout")
"""timm's tiny models: class token, registers, neither, and two that are no transformers."""

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


def _images(height: int = 64, width: int = 96, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def _random(name: str, stages: Any = LEVELS, **options: Any) -> Backbone:
    torch.manual_seed(0)
    return load_backbone(name, stages, weights=None, **options).eval()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "wide_resnet50_2" else []) for n in FAMILIES]
)
def test_maps_of_a_rectangle(name: str) -> None:
    backbone = _random(name, embedding=True)
    channels, sizes, width = FAMILIES[name]
    with torch.inference_mode():
        maps, again = backbone(_images()), backbone(_images())
    assert [m.shape for m in maps[:4]] == [(2, c, *hw) for c, hw in zip(channels, sizes, strict=True)]
    assert maps[4].shape == (2, width, 1, 1)
    assert all(torch.equal(one, other) and torch.isfinite(one).all() for one, other in zip(maps, again, strict=True))


@pytest.mark.parametrize("name", [*TINY, *SLOW])
def test_described_facts_are_those_of_the_maps(name: str) -> None:
    backbone = _random(name)
    with torch.inference_mode():
        maps = backbone(_images(96, 64, count=1))
    facts = backbone.describe((96, 64))
    assert [(f.channels, f.hw) for f in facts] == [(m.shape[1], (m.shape[2], m.shape[3])) for m in maps]
    assert all(abs(f.stride - 96 / f.hw[0]) <= 0.5 for f in facts)
    assert [f.hw for f in backbone.describe(64)] == [f.hw for f in backbone.describe((64, 64))]


@pytest.mark.parametrize("name", [*TINY, *SLOW])
@pytest.mark.parametrize("embedding", [False, True])
def test_every_parameter_gets_a_gradient(name: str, embedding: bool) -> None:
    backbone = _random(name, LEVELS[:3], embedding=embedding).train()
    sum(m.float().square().mean() for m in backbone(_images())).backward()  # type: ignore[union-attr]
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


@pytest.mark.parametrize("name", [*TINY, *SLOW])
def test_bfloat16_is_the_same_function_beyond_rounding(name: str) -> None:
    backbone, images = _random(name), _images()
    with torch.inference_mode():
        exact = backbone(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = backbone(images)
    for one, other in zip(exact, rounded, strict=True):
        assert (one - other.float()).norm() < 0.05 * one.norm()


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "swin_tiny_patch4_window7_224"])
def test_a_change_shows_at_its_place(name: str) -> None:
    backbone = _random(name, (0,))
    images = torch.full((2, 3, 64, 96), 128, dtype=torch.uint8)
    images[1, :, 16:32, 64:80] = _images(16, 16)[0]
    with torch.inference_mode():
        (found,) = backbone(images)
    change = (found[1] - found[0]).norm(dim=0)
    row, column = divmod(int(change.argmax()), change.shape[1])
    stride = 64 // change.shape[0]
    assert 16 <= row * stride < 32
    assert 64 <= column * stride < 80


@pytest.mark.parametrize(("name", "size"), [("test_vit", 160), ("test_vit2", 160), ("eva02_tiny_patch14_224", 224)])
def test_maps_and_embedding_are_timms_tokens(name: str, size: int) -> None:
    backbone = _random(name, (-1,), embedding=True)
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=0).eval()
    images = _images(size, size, count=1)
    with torch.inference_mode():
        map_, embedding = backbone(images)
        inputs = (images.float() - backbone.mean) / backbone.std
        tokens = model.forward_features(inputs)
        pooled = model.fc_norm(tokens[:, 0]) if model.cls_token is not None else model(inputs)
        last = model.norm(map_.permute(0, 2, 3, 1))
    side = size // model.patch_embed.patch_size[0]
    spatial = tokens[:, model.num_prefix_tokens :].reshape(1, side, side, -1)
    torch.testing.assert_close(last, spatial, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(embedding.flatten(1), pooled, rtol=1e-4, atol=1e-4)


def test_sides_are_rounded_to_whole_patches() -> None:
    """The map of 64 px is that of the image resized to 70 px, five patches: no border is cut or added."""
    backbone = _random("eva02_tiny_patch14_224", (0,))
    images = torch.zeros(1, 3, 64, 84, dtype=torch.uint8)
    images[..., -3:] = 255
    with torch.inference_mode():
        (found,) = backbone(images)
    assert found.shape[2:] == (5, 6)
    grey = torch.full((1, 3, 64, 64), 100, dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(grey)[0], backbone(grey.new_full((1, 3, 70, 70), 100))[0])


@pytest.mark.parametrize("name", ["test_vit", "eva02_tiny_patch14_224"])
def test_positions_fixed_for_an_export_are_those_of_the_size(name: str) -> None:
    backbone = _random(name, (1,))
    assert isinstance(backbone.model, TokenMaps)
    with torch.inference_mode():
        (before,) = backbone(_images(64, 112))
    backbone.model.fix_positions((64, 112))
    grid = backbone.model.timm.patch_embed.grid_size
    assert backbone.model.timm.pos_embed.shape[1] == grid[0] * grid[1] + backbone.model.timm.num_prefix_tokens
    with torch.inference_mode():
        torch.testing.assert_close(backbone(_images(64, 112))[0], before)


def test_later_blocks_are_not_kept() -> None:
    sizes = [sum(p.numel() for p in _random("test_vit", (stage,)).parameters()) for stage in range(6)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_the_last_stage_is_what_stands_behind_the_map_before(name: str) -> None:
    backbone = _random(name, (1, 3))
    unfreeze(backbone, "last")
    block = "blocks" if name == "test_vit" else "layers"
    trained = {n.split(".")[3] for n, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"2", "3"}
    assert all(f".{block}." in n for n, p in backbone.named_parameters() if p.requires_grad)


def test_another_grid_of_positions_is_resampled(tmp_path: Path) -> None:
    state = timm.create_model("test_vit", img_size=96, num_classes=0).state_dict()
    save_file(state, tmp_path / "small.safetensors")
    backbone = load_backbone("test_vit", (1,), weights=str(tmp_path / "small.safetensors"))
    found = backbone.state_dict()
    wanted = resample_abs_pos_embed(state["pos_embed"], new_size=[10, 10], num_prefix_tokens=1)
    torch.testing.assert_close(found["model.timm.pos_embed"], wanted)
    assert torch.equal(found["model.timm.blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])


def test_weights_in_the_naming_of_their_authors(tmp_path: Path) -> None:
    """Facebook's ConvNeXt has other names of layers."""
    state = timm.create_model("test_convnext", num_classes=0).state_dict()
    theirs = {_theirs(name): value for name, value in state.items()}
    torch.save({"model": theirs}, tmp_path / "convnext.pth")
    backbone = load_backbone("test_convnext", (1,), weights=str(tmp_path / "convnext.pth"))
    found = backbone.state_dict()
    assert torch.equal(found["model.stem.0.weight"], state["stem.0.weight"])
    assert torch.equal(found["model.stages.1.downsample.1.weight"], state["stages.1.downsample.1.weight"])


def _theirs(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "head":
        return ".".join(parts[1:])
    if parts[0] == "stem":
        return ".".join(["downsample_layers", "0", *parts[1:]])
    if "downsample" in parts:
        return ".".join(["downsample_layers", parts[1], *parts[3:]])
    if "blocks" in parts:
        renamed = {"conv_dw": "dwconv", "fc1": "pwconv1", "fc2": "pwconv2"}
        return ".".join(renamed.get(part, part) for part in parts if part not in ("blocks", "mlp"))
    return name


def test_inputs_are_normalised_as_the_weights_were_trained() -> None:
    plain = Backbone("vit_tiny_patch16_224", (0,))
    tagged = Backbone("vit_tiny_patch16_224.augreg_in21k", (0,))
    half = Backbone("test_vit", (0,))
    for backbone in (plain, tagged, half):
        wanted = 255 * torch.tensor(timm.get_pretrained_cfg(backbone.name).mean)
        torch.testing.assert_close(backbone.mean.flatten(), wanted)


def test_a_model_of_one_size_names_it() -> None:
    backbone = _random("test_coatnet", (1,))
    assert backbone.describe(160)[0].hw == (40, 40)
    with pytest.raises(ParameterError, match=r"test_coatnet: inputs of 64 px are not accepted; .* set size=160"):
        _random("test_coatnet", (3,)).describe(64)


@pytest.mark.parametrize(
    ("name", "stride"), [("resnet18", 32), ("swin_tiny", 32), ("dinov2_small", 14), ("xcit_nano_12_p8_224", 8)]
)
def test_the_stride_is_known_without_weights(name: str, stride: int) -> None:
    state = torch.get_rng_state()
    assert stride_of(name) == stride
    assert torch.equal(torch.get_rng_state(), state)


def test_every_alias_is_a_timm_model() -> None:
    assert {name for name in ALIASES.values() if not timm.is_model(name)} == set()
    assert not [alias for alias in ALIASES if timm.is_model(alias)]
    assert isinstance(_random("eva02_tiny", (0,)).model, TokenMaps)


@pytest.mark.parametrize(
    ("name", "said"),
    [("dinov2_smal", "did you mean dinov2_small?"), ("siglip_bas", "did you mean siglip_base?")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said.replace("?", r"\?")):
        load_backbone(name, weights=None)


def test_layers_that_timm_does_not_offer_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"cannot be cut at \['blocks.1.attn'\]; its maps: blocks.0"):
        load_backbone("test_vit", ("blocks.1.attn",), weights=None)
    assert _random("test_vit", ("blocks.1", "stride16")).layers == ["blocks.1", "blocks.4"]


@pytest.mark.parametrize(
    ("name", "stages", "default", "made_for", "wanted"),
    [
        (DEFAULT_BACKBONE, (1, "blocks.5"), (1, "blocks.5"), DEFAULT_BACKBONE, [1, "blocks.5"]),
        ("lite0", (1,), (1,), DEFAULT_BACKBONE, [1]),
        ("swin_tiny", (1, "blocks.5"), (1, "blocks.5"), DEFAULT_BACKBONE, ["stride4", "stride32"]),
        ("swin_tiny", (0, 1), (1, "blocks.5"), DEFAULT_BACKBONE, [0, 1]),
        ("resnet50", (3, 4), (3, 4), "resnet50", [3, 4]),
    ],
)
def test_defaults_follow_the_family(name: str, stages: Any, default: Any, made_for: str, wanted: list[Any]) -> None:
    assert own_stages(name, stages, default, made_for) == wanted


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_strides_are_the_numbers_of_convolutional_models(name: str) -> None:
    assert Backbone(name, LEVELS).layers == Backbone(name, (1, 2, 3, 4)).layers
