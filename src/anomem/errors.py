"""Every error that anomem raises on purpose.

::

    AnomemError
    ├── InputError (ValueError)         a path, table, array or label that cannot be used
    │   └── ImageError                  one image that cannot be decoded
    ├── ParameterError (ValueError)     a hyperparameter outside its declared range
    ├── CalibrationError (ValueError)   an alpha that the calibration normals cannot carry
    ├── ModelFileError                  a file that is not an anomem model, or of an unknown version
    ├── NotFittedError                  a fitted detector was needed
    ├── ExportError                     an exported file that does not score as its model; none is left
    └── MissingExtraError (ImportError) an optional dependency is not installed

Messages are one line: what is wrong, with the file or the parameter named, then how to mend it.
"""

from __future__ import annotations


class AnomemError(Exception):
    """Base of all errors that anomem raises on purpose."""


class InputError(AnomemError, ValueError):
    """A path, table, array or label that cannot be used."""


class ImageError(InputError):
    """One image that cannot be decoded.

    Parameters
    ----------
    name : str
        The file (or the position in the input) that failed.
    reason : str
        What is wrong with it, and where possible how to mend it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class ParameterError(AnomemError, ValueError):
    """A hyperparameter outside its declared range."""


class CalibrationError(AnomemError, ValueError):
    """An alpha that the calibration normals cannot carry."""


class ModelFileError(AnomemError):
    """A file that is not an anomem model, or one of an unknown version."""


class NotFittedError(AnomemError):
    """A fitted detector was needed and this one is not."""


class ExportError(AnomemError):
    """An export failed its check: nothing was written."""


class MissingExtraError(AnomemError, ImportError):
    """An optional dependency, or all of anomem beyond its runtime, is not installed.

    Parameters
    ----------
    package : str
        What is missing.
    extra : str
        That brings it along; empty where the distribution itself does.
    distribution : str
        Whose extra it is.
    """

    def __init__(self, package: str, extra: str = "", distribution: str = "anomem") -> None:
        wanted = f"'{distribution}[{extra}]'" if extra else distribution
        super().__init__(f"{package} is not installed: pip install {wanted}")
        self.package = package
        self.extra = extra
        self.distribution = distribution


class AnomemWarning(UserWarning):
    """Something was done otherwise than asked; the line says what and why."""


class RenamedWarning(AnomemWarning, FutureWarning):
    """An old name was used; the line gives the new one, and the old one works in this version only."""
