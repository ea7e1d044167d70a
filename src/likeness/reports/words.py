"""How names and numbers read, in every table and figure; what is not known reads ``–``."""

import math

NONE = "–"
METHODS = {"head": "head", "frozen": "frozen", "pca": "PCA", "random_projection": "random projection"}


def pair(names: str) -> str:
    """Two methods that are compared.

    >>> pair("head-random_projection")
    'head − random projection'
    """
    return " − ".join(METHODS.get(name, name) for name in names.split("-", 1))


def percent(value: float | int | None) -> str:
    """A fraction as percent without the sign.

    >>> percent(0.5824), percent(None)
    ('58.2', '–')
    """
    return NONE if value is None else f"{100 * value:.1f}"


def points(value: float | int | None) -> str:
    """A difference of fractions in percentage points.

    >>> points(-0.004)
    '−0.4'
    """
    return NONE if value is None else signed(f"{100 * value:+.1f}")


def spread(value: float | None, high: float | None) -> str:
    """A fraction in percent and half the width of its interval, if there is one.

    >>> spread(0.579, 0.583), spread(0.579, float("nan"))
    ('57.9 ± 0.4', '57.9')
    """
    known = value is not None and high is not None and not math.isnan(high)
    return percent(value) + (f" ± {percent(high - value)}" if known else "")  # type: ignore[operator]


def p_value(value: float | int | None) -> str:
    if value is None:
        return f"p = {NONE}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def count(value: float | int | None) -> str:
    return NONE if value is None else f"{value:,}"


def signed(number: str) -> str:
    """A formatted number with a true minus sign."""
    return number.replace("-", "−")


def shortened(text: str, most: int) -> str:
    """``text``, cut in the middle to ``most`` characters when it is longer.

    >>> shortened("bath_room_00000011.jpg", 11)
    'bath_…1.jpg'
    """
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"
