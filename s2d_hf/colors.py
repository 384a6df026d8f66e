"""One colour for each expression, in plots and on videos."""

import colorsys
from collections.abc import Sequence

# Chosen by simulated annealing over CIEDE2000: of the first seven no two are closer than 17, and of all no two closer
# than 12, in normal vision, protanopia, deuteranopia and tritanopia. All are light enough for a dark background.
_COLOURS = {
    "neutral": "#BDB8B1",
    "happiness": "#FAD915",
    "sadness": "#078EF4",
    "anger": "#C02408",
    "surprise": "#E67940",
    "disgust": "#027F6A",
    "fear": "#684F93",
    "contempt": "#7D4D41",
    "anxiety": "#D599C2",
    "disappointment": "#1EDEFF",
    "helplessness": "#A1D68D",
}
_OTHER_NAMES = {
    "happy": "happiness",
    "joy": "happiness",
    "sad": "sadness",
    "angry": "anger",
    "surprised": "surprise",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "anxious": "anxiety",
    "disappointed": "disappointment",
    "helpless": "helplessness",
}


def label_colours(labels: Sequence[str]) -> dict[str, str]:
    """
    A colour for each label, as `"#RRGGBB"`.

    An expression has the same colour whatever the order of the labels and under each of its names (`"happy"`,
    `"Happiness"`). Labels that are none of the known ones take the colours that are left, in their order; once those
    are used up, colours are made that may be hard to tell apart.

    Example:
    ```python
    >>> label_colours(("neutral", "happy"))
    {'neutral': '#BDB8B1', 'happy': '#FAD915'}
    ```
    """
    colours: dict[str, str] = {}
    for label in labels:
        name = label.strip().lower()
        colour = _COLOURS.get(_OTHER_NAMES.get(name, name))
        if colour is not None and colour not in colours.values():
            colours[label] = colour
    left = [colour for colour in _COLOURS.values() if colour not in colours.values()]
    for number, label in enumerate(label for label in labels if label not in colours):
        colours[label] = left[number] if number < len(left) else _made_colour(number - len(left))
    return {label: colours[label] for label in labels}


def to_rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour `"#RRGGBB"`."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def fade(colour: str, strength: float) -> str:
    """
    A colour `"#RRGGBB"` blended with white, as the same kind of text: `strength` 1 is the colour itself, 0 is white,
    and what lies beyond is clipped.
    """
    strength = min(1.0, max(0.0, strength))
    return "#" + bytes(round(255 - strength * (255 - value)) for value in to_rgb(colour)).hex().upper()


def text_colour(background: str) -> str:
    """Black or white, whichever reads better on a colour `"#RRGGBB"`, by WCAG 2's relative luminance."""
    values = [value / 255 for value in to_rgb(background)]
    red, green, blue = (value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    # where the contrast ratios with black and white are equal
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#FFFFFF"


def _made_colour(number: int) -> str:
    """Colours whose hues are a golden angle apart, by turns lighter and darker."""
    rgb = colorsys.hls_to_rgb((0.1 + 0.618034 * number) % 1, (0.45, 0.65, 0.55)[number % 3], 0.6)
    return "#" + bytes(round(255 * value) for value in rgb).hex().upper()
