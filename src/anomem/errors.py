"""Every error that anomem raises on purpose.

::

    AnomemError
    ├── InputError (ValueError)         a path, table, array or label that cannot be used
    │   └── ImageError                  one image that cannot be decoded
    ├── OutputError (OSError)           a file that cannot be written
    ├── ParameterError (ValueError)     a hyperparameter outside its declared range
    ├── CalibrationError (ValueError)   an alpha that the calibration normals cannot carry
    ├── ModelFileError                  a file that is not an anomem model, or of an unknown version
    ├── NotFittedError                  a fitted detector was needed
    ├── ExportError                     an exported file that does not score as its model; none is left
    └── MissingExtraError (ImportError) an optional dependency is not installed

Messages are one line: what is wrong, with the file or the parameter named, then how to mend it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable


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


class OutputError(AnomemError, OSError):
    """A file that cannot be written.

    Parameters
    ----------
    path : str
        The file as the caller named it.
    error : OSError
        What the system says.
    """

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"{path}: cannot be written ({error.strerror or error}); {_remedy(error.errno)}")
        self.path = path
        self.error = error

    def __str__(self) -> str:
        return str(self.args[0])


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


def _remedy(number: int | None) -> str:
    full = number in (errno.ENOSPC, getattr(errno, "EDQUOT", None), None)
    return "free space there, or name a file on another disk" if full else "check the folder, or name another file"


class AnomemWarning(UserWarning):
    """Something was done otherwise than asked; the line says what and why."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name most like another one; None where none is alike by the share `cutoff`."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def suggestion(name: str, known: Iterable[str], *, among: Iterable[str] | None = None) -> str:
    """Return the end of a message about an unknown name: the nearest known one, or all of them.

    Parameters
    ----------
    name : str
    known : iterable of str
        Names listed where none is alike.
    among : iterable of str, optional
        Names that may be suggested, by default the same.

    Examples
    --------
    >>> suggestion("padin", ["knn", "padim"]), suggestion("x", ["knn", "padim"])
    ('did you mean padim?', 'known: knn, padim')
    """
    names = list(known)
    near = nearest(name, names if among is None else among)
    return f"did you mean {near}?" if near else "known: " + ", ".join(names)


def one_line(text: object, longest: int | None = None) -> str:
    r"""Return text, or an error's message, on one line; an error without a message by its kind.

    Examples
    --------
    >>> one_line("a\n  b"), one_line(KeyError()), one_line("a long one", 6)
    ('a b', 'KeyError', 'a long...')
    """
    shown = " ".join(str(text).split()) or (type(text).__name__ if isinstance(text, BaseException) else "")
    return shown if longest is None or len(shown) <= longest else f"{shown[:longest]}..."


class RenamedWarning(AnomemWarning, FutureWarning):
    """An old name was used; the line gives the new one, and the old one works in this version only."""
