"""Contrast of a page's text to its ground."""

# Text on its ground, as (colour, ground) of the style sheet's names.
TEXTS = [
    ("--ink", "--paper"), ("--ink", "--card"), ("--ink", "--heat-low"), ("--ink", "--heat-high"),
    ("--faint", "--paper"), ("--faint", "--card"), ("--faint", "--soft"), ("--accent", "--paper"),
    ("--on-accent", "--accent"), ("--good", "--good-soft"), ("--bad", "--bad-soft"), ("--unsure", "--unsure-soft"),
    ("--good", "--card"), ("--bad", "--card"), ("--card", "--ink"),
]  # fmt: skip


def contrast(page, one: str, other: str) -> float:
    """Of two colours of the page's style sheet."""
    read = "names => names.map(name => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    darker, lighter = sorted(map(luminance, page.evaluate(read, [one, other])))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Of WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
