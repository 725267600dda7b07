"""Errors and warnings raised by anomem.

::

    AnomemError
    ├── InputError (ValueError)         unusable path, table, array or label
    │   └── ImageError                  image that cannot be decoded
    ├── OutputError (OSError)           file that cannot be written
    ├── ParameterError (ValueError)     hyperparameter outside its declared range
    ├── CalibrationError (ValueError)   alpha too small for the number of calibration normals
    ├── ModelFileError                  file that is not an anomem model, or has an unknown version
    ├── NotFittedError                  detector used before `fit`
    ├── ExportError                     exported scores differ from the model's; no file is written
    └── MissingExtraError (ImportError) missing optional dependency

Messages are one line: the subject (file or parameter), the problem, the fix.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable


class AnomemError(Exception):
    """Base class of all errors raised by anomem."""


class InputError(AnomemError, ValueError):
    """Unusable path, table, array or label."""


class ImageError(InputError):
    """Image that cannot be decoded.

    Parameters
    ----------
    name : str
        File, or position in the input, of the image.
    reason : str
        The problem, and the fix where one is known.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class OutputError(AnomemError, OSError):
    """File that cannot be written.

    Parameters
    ----------
    path : str
        File as named by the caller.
    error : OSError
        Error of the operating system.
    """

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"{path}: cannot be written ({error.strerror or error}); {_remedy(error.errno)}")
        self.path = path
        self.error = error

    def __str__(self) -> str:
        return str(self.args[0])


class ParameterError(AnomemError, ValueError):
    """Hyperparameter outside its declared range."""


class CalibrationError(AnomemError, ValueError):
    """Alpha too small for the number of calibration normals."""


class ModelFileError(AnomemError):
    """File that is not an anomem model, or has an unknown version."""


class NotFittedError(AnomemError):
    """Detector used before `fit`."""


class ExportError(AnomemError):
    """Export that failed its check; no file is written."""


class MissingExtraError(AnomemError, ImportError):
    """Missing optional dependency, or anomem beyond its runtime.

    Parameters
    ----------
    package : str
        Missing package.
    extra : str
        Extra that installs the package; empty if the distribution itself does.
    distribution : str
        Distribution that has the extra.
    """

    def __init__(self, package: str, extra: str = "", distribution: str = "anomem") -> None:
        wanted = f"'{distribution}[{extra}]'" if extra else distribution
        super().__init__(f"{package} is not installed: pip install {wanted}")
        self.package = package
        self.extra = extra
        self.distribution = distribution


def _remedy(number: int | None) -> str:
    full = number in (errno.ENOSPC, getattr(errno, "EDQUOT", None), None)
    return "free space there, or name a file on another disk" if full else "check the folder, or name another file"


class AnomemWarning(UserWarning):
    """Deviation from the request, or a condition that affects results."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name most similar to `name`, or None if no similarity reaches `cutoff`."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def suggestion(name: str, known: Iterable[str], *, among: Iterable[str] | None = None) -> str:
    """Return a hint for an unknown name: the nearest known name, or all known names.

    Parameters
    ----------
    name : str
    known : iterable of str
        Names listed if none is similar.
    among : iterable of str, optional
        Names that may be suggested; by default `known`.

    Examples
    --------
    >>> suggestion("padin", ["knn", "padim"]), suggestion("x", ["knn", "padim"])
    ('did you mean padim?', 'known: knn, padim')
    """
    names = list(known)
    near = nearest(name, names if among is None else among)
    return f"did you mean {near}?" if near else "known: " + ", ".join(names)


def one_line(text: object, longest: int | None = None) -> str:
    r"""Return text or an error's message on one line; the class name for an error without a message.

    Examples
    --------
    >>> one_line("a\n  b"), one_line(KeyError()), one_line("a long one", 6)
    ('a b', 'KeyError', 'a long...')
    """
    shown = " ".join(str(text).split()) or (type(text).__name__ if isinstance(text, BaseException) else "")
    return shown if longest is None or len(shown) <= longest else f"{shown[:longest]}..."


class RenamedWarning(AnomemWarning, FutureWarning):
    """Use of a deprecated name; the message gives the new one, and the old one works in this version only."""
