"""Deprecated names of version 0.1, which warn and work for one more version; docs/migration.md lists them."""

from __future__ import annotations

import sys
from types import ModuleType

# Imported at every start of the command, before interrupts are handled: all other imports are lazy.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, MutableSequence, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

__all__ = ["CLASSES", "MODULES", "OldNames", "install", "warn_renamed"]

MODULES: dict[str, tuple[str, ...]] = {
    "data.disturb": ("data.disturbance",),
    "detectors.baselines.memae": ("detectors.reconstruction.memae",),
    "detectors.pmb": ("detectors.reconstruction.pmb",),
    "losses": (),
    "losses.alignment": ("detectors.fyd.loss",),
    "losses.hypersphere": ("detectors.baselines._hypersphere",),
    "losses.memory": ("detectors.anomem.loss", "nn.contrastive_loss"),
    "losses.perturbation": ("detectors.plume.loss",),
    "losses.reconstruction": ("detectors.reconstruction.loss",),
    "nn.contrastive": ("nn.views", "detectors.anomem.stage_one"),
    "nn.features": ("nn.inference",),
    "nn.heads": ("detectors.anomem.heads",),
    "nn.multiscale": ("detectors.anomem.scorer",),
    "nn.seeding": ("detectors.anomem.seeding",),
    "persistence": ("modelfile",),
    "protocols": (),
    "protocols.datasets": ("benchmark.image_sets",),
    "protocols.evaluate": ("evaluation.evaluate",),
    "protocols.evaluation": ("evaluation.figures",),
    "protocols.images": ("data.labelled_images",),
    "protocols.journal": ("benchmark.run_file",),
    "protocols.linear": ("benchmark.protocols.representation",),
    "protocols.published": ("report.benchmark.published",),
    "protocols.suites": ("benchmark.suites",),
    "protocols.units": ("benchmark.unit",),
    "report.page": ("report.evaluation.page",),
    "runtime.calibrating": ("runtime.recalibration",),
    "runtime.judge": ("runtime.model",),
}
"""Module of version 0.1 below ``anomem`` -> current modules of its names."""

CLASSES = {"BenchSet": "BenchmarkSet", "Journal": "RunFile", "Judge": "Model", "Workbench": "Workspace"}
"""Class of version 0.1 -> current class."""


def warn_renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Warn that `old` is renamed to `new`."""
    import warnings

    from anomem.errors import RenamedWarning

    warnings.warn(f"{old} is called {new} and goes with the next version", RenamedWarning, stacklevel=stacklevel)


class _OldModule(ModuleType):
    """Module of version 0.1 that looks up its names in the current modules."""

    __path__: MutableSequence[str] = []  # noqa: RUF012 - marks a package

    def __getattr__(self, name: str) -> object:
        from importlib import import_module

        if not name.startswith("__"):
            for place in MODULES[self.__name__.removeprefix("anomem.")]:
                module = import_module(f"anomem.{place}")
                if hasattr(module, CLASSES.get(name, name)):
                    warn_renamed(f"{self.__name__}.{name}", f"{module.__name__}.{CLASSES.get(name, name)}")
                    return getattr(module, CLASSES.get(name, name))
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Finder:
    """Import hook for the modules of version 0.1; consulted after all other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if not fullname.startswith("anomem.") or fullname.removeprefix("anomem.") not in MODULES:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(fullname, self, is_package=True)  # type: ignore[arg-type] # a loader by duck typing

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _OldModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: names are looked up on access."""


class OldNames:
    """Deprecated methods of version 0.1; iterators of records became calls with ``progress=``."""

    def fit_steps(self: Any, *given: object, **options: object) -> Iterator[object]:
        """Fit and yield records; replaced by :meth:`fit` with `progress`."""
        warn_renamed("fit_steps", "fit(..., progress=)")
        return iter(self._fit_steps(*given, **options))

    def refit_labels(self: Any, images: object, y: object = None, **options: object) -> Any:
        """Refit the second stage; replaced by :meth:`label`."""
        warn_renamed("refit_labels", "label")
        return self.label(images, y, **options)

    def refit_labels_steps(self: Any, *given: object, **options: object) -> Iterator[object]:
        """Refit the second stage and yield records; replaced by :meth:`label` with `progress`."""
        warn_renamed("refit_labels_steps", "label(..., progress=)")
        return iter(self._label_steps(*given, **options))

    def calibrate_steps(self: Any, normals: object, alpha: float | None = None, **options: object) -> Iterator[object]:
        """Calibrate and yield records; replaced by :meth:`calibrate` with `progress`."""
        warn_renamed("calibrate_steps", "calibrate(..., progress=)")
        opening = {name: options.pop(name, None) for name in ("workers", "max_pixels")}
        opening["skip_bad"] = options.pop("skip_bad", False)
        running = {"batch_size": 16, "device": "auto", **options}
        groups = running.pop("groups", None)
        return iter(self._calibrated(self._prepared(normals, **opening), self._request(alpha, groups), **running))

    def export_steps(self: Any, *given: object, **options: object) -> Iterator[object]:
        """Export and yield records; replaced by :meth:`export` with `progress`."""
        warn_renamed("export_steps", "export(..., progress=)")
        return iter(self._export_steps(*given, **options))

    def results(self: Any, images: object, **options: object) -> Iterator[object]:
        """Run the network; replaced by :meth:`raw_results`."""
        warn_renamed("results", "raw_results")
        return iter(self.raw_results(images, **options))


def install() -> None:
    """Install the import hook once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
