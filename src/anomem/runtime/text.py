"""Number formatting: percentages, raw scores, counts."""

from __future__ import annotations

__all__ = ["count", "number", "percent", "percent_digits", "rate"]


def percent_digits(fraction: float, digits: int = 1) -> str:
    """Return a measured fraction in percent without the sign, never rounded to 0 or 100.

    Parameters
    ----------
    fraction : float
        From 0 to 1.
    digits : int
        Decimals.

    Examples
    --------
    >>> [percent_digits(fraction) for fraction in (0.9312, 0.99996, 1.0, 0.0002)]
    ['93.1', '>99.9', '100', '<0.1']
    """
    if fraction in (0.0, 1.0):
        return f"{100 * fraction:.0f}"
    shown = f"{100 * fraction:.{digits}f}"
    step = 10.0**-digits
    if float(shown) >= 100.0:
        return f">{100 - step:.{digits}f}"
    return f"<{step:.{digits}f}" if float(shown) <= 0.0 else shown


def percent(fraction: float, digits: int = 1, *, space: str = " ") -> str:
    """Return a measured fraction in percent; parameters as for `percent_digits`, with `space` before the sign.

    Examples
    --------
    >>> percent(0.9312), percent(0.99996), percent(1.0), percent(0.0123, 2)
    ('93.1 %', '> 99.9 %', '100 %', '1.23 %')
    """
    shown = percent_digits(fraction, digits)
    bound = shown[0] + space if shown[0] in "<>" else ""
    return f"{bound}{shown.lstrip('<>')}{space}%"


def rate(fraction: float, *, space: str = " ") -> str:
    """Return a chosen rate in percent, without trailing digits.

    Examples
    --------
    >>> rate(0.05), rate(0.0025), rate(1 / 31)
    ('5 %', '0.25 %', '3.23 %')
    """
    return f"{100 * fraction:.3g}{space}%"


def number(value: float) -> str:
    """Return a raw score with four significant digits."""
    return f"{value:.4g}"


def count(number: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless the count is 1.

    Examples
    --------
    >>> count(1, "image"), count(1200, "normal image")
    ('1 image', '1,200 normal images')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
