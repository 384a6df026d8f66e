"""The picture of a timeline: each face's scores over time, with thumbnails and smoothed segments."""

import os
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..colors import fade, label_colours, text_colour
from ..texts_s2d import shorten
from .fonts import characters_of, escape_missing, find_fonts, warn_of_escapes
from .tracks import FaceTimeline, FaceTracks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

MAX_TRACKS = 12
SUFFIXES = (".png", ".pdf", ".svg")

# inches
_WIDTH = 13.0
_LEFT, _RIGHT = 1.5, 0.65
_PLOT_WIDTH = _WIDTH - _LEFT - _RIGHT
_TITLE, _LEGEND_ROW, _HEADER_GAP = 0.7, 0.22, 0.16
_TOP_TICKS, _BOTTOM = 0.3, 0.62
_THUMBNAILS, _BAND, _INNER_GAP, _GAP = 0.62, 0.25, 0.05, 0.3

_DPI = 150
_MAX_POINTS = 800  # no more points of a curve can be told apart in the plot's width
_MAX_CUTS = 40  # from here on, more cuts are drawn more faintly
_INK, _PALE = "#222222", "#8A8A8A"
_LINE = 1.6  # points, beneath a band
_FADING = (1.0, 0.8, 0.6, 0.4, 0.2)  # strengths in the legend
_TICK_STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600)


def plot_timeline(timeline: FaceTracks, path: str | os.PathLike | None = None) -> "Figure":
    """
    Draws the scores of each face over the time of the whole video.

    Each track has its thumbnails (where the timeline holds them) in the colour of the segment that they are of, the
    probabilities of the labels as stacked areas, and a band of its smoothed segments, with their mean scores where
    there is room. Segments are the paler, the lower their mean scores. Vertical lines are cuts. Of more than 12
    tracks, the longest are shown, and the title says how many are not. It leaves pyplot's state alone.

    Names are drawn with the fonts that matplotlib is set to, and where these lack a character with any installed one
    that has it. Where none has, a label shows `U+5FEB` or the like, which a warning tells, and the title a box.

    Args:
        timeline ([`FaceTracks`]): What to draw.
        path (`str` or `os.PathLike`, *optional*): The file to write, ending in .png, .pdf or .svg; folders that are
            missing are made.

    Returns:
        `matplotlib.figure.Figure`: for each track the axes labelled "thumbnails N" (if it has any), "scores N" and
        "segments N", in which times are in seconds.

    Raises:
        ValueError: if `path` has another suffix.

    Example:
    ```python
    plot_timeline(VideoTimeline.from_json("video.json"), "video.png")
    ```
    """
    path = None if path is None else Path(path)
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`path` must end in {', '.join(SUFFIXES)}, got {str(path)!r}.")
    figure = _TimelineFigure(timeline).draw()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=path.suffix[1:].lower())
    return figure


class _TimelineFigure:
    """Lays a timeline out from top to bottom, in inches, so that all rows share one time axis."""

    def __init__(self, timeline: FaceTracks):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.font_manager import FontProperties

        self.timeline = timeline
        self.tracks = _choose_tracks(timeline.tracks)
        self.colours = label_colours(timeline.labels)
        self.until = max([timeline.duration, *(face.end for face in timeline.tracks)]) or 1.0
        self.scores_height = {0: 0.6, 1: 1.9, 2: 1.5, 3: 1.2}.get(len(self.tracks), 0.85)
        self.figure = Figure(figsize=(_WIDTH, 1), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.source = shorten(Path(timeline.source).name or timeline.source, 44, keep="ends")
        fonts = find_fonts("".join([*timeline.labels, self.source]))
        self.family = list(dict.fromkeys([*FontProperties().get_family(), *(family for family, _ in fonts)]))
        known = frozenset().union(*(characters_of(file) for _, file in fonts))
        self.names = {label: escape_missing(label, known) for label in timeline.labels}
        self.source = _drawable(self.source, known)
        warn_of_escapes(self.names)
        self.widths: dict[str, float] = {}
        widest = max((self._text_width(name) for name in self.names.values()), default=0)
        columns = max(1, int(_PLOT_WIDTH / (widest + 0.5)))
        self.legend_columns = min(columns, len(timeline.labels) + bool(timeline.cuts))
        rows = -(-(len(timeline.labels) + bool(timeline.cuts)) // max(1, self.legend_columns))
        self.header = _TITLE + _LEGEND_ROW * rows + _HEADER_GAP + _TOP_TICKS * (len(self.tracks) > 3)
        body = sum(self._track_height(face) for face in self.tracks) if self.tracks else self.scores_height
        self.height = self.header + body + _BOTTOM
        self.figure.set_size_inches(_WIDTH, self.height)

    def draw(self) -> "Figure":
        self._draw_header()
        below = self._draw_time_axis()
        top = self.header
        for face in self.tracks:
            # pictures and names cover the lines of the cuts, which cover the scores
            self._draw_track(face, top)
            top += self._track_height(face)
        if not self.tracks:
            note: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 13, "color": _INK}
            below.text(0.5, 0.5, "No face was found in this video.", transform=below.transAxes, **note)
        self._draw_cuts()
        return self.figure

    def _track_height(self, face: FaceTimeline) -> float:
        thumbnails = _THUMBNAILS + _INNER_GAP if face.thumbnails else 0
        return thumbnails + self.scores_height + _INNER_GAP + _BAND + _GAP

    def _axes(self, name: str, top: float, height: float) -> "Axes":
        """Axes of the plot's width, `top` inches below the figure's upper edge; their x axis is the video's time."""
        place = (_LEFT / _WIDTH, 1 - (top + height) / self.height, _PLOT_WIDTH / _WIDTH, height / self.height)
        axes = self.figure.add_axes(place, label=name, facecolor="none")
        axes.set_xlim(0, self.until)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set(xticks=[], yticks=[])
        return axes

    def _text_width(self, text: str) -> float:
        """Of a text in a band or the legend, in inches."""
        if text not in self.widths:
            canvas: Any = self.figure.canvas  # Agg's, which has a renderer
            drawn = self.figure.text(0, 0, text, fontsize=9, parse_math=False, family=self.family)
            self.widths[text] = drawn.get_window_extent(canvas.get_renderer()).width / _DPI
            drawn.remove()
        return self.widths[text]

    def _draw_header(self) -> None:
        from matplotlib.legend_handler import HandlerTuple
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        inch = 1 / self.height
        left = _LEFT / _WIDTH
        style: dict[str, Any] = {"fontsize": 14, "va": "top", "color": _INK, "parse_math": False}
        # other fonts may have no bold face
        is_bold = {ord(character) for character in self.source} <= _characters_of_bold_fonts()
        style |= {"weight": "bold"} if is_bold else {"family": self.family}
        self.figure.text(left, 1 - 0.2 * inch, self.source, **style)
        self.figure.text(1 - _RIGHT / _WIDTH, 1 - 0.24 * inch, self._summary(), fontsize=10, va="top", ha="right")
        handles: list[Any] = [Patch(facecolor=self.colours[label]) for label in self.timeline.labels]
        if self.timeline.cuts:
            handles.append(Line2D([], [], color=_INK, linewidth=1, linestyle=(0, (4, 2))))
        names = [*self.names.values(), "cut"][: len(handles)]
        places = _row_by_row(len(handles), self.legend_columns)
        style = {"borderaxespad": 0, "borderpad": 0, "frameon": False, "handleheight": 0.9}
        legend = self.figure.legend(
            [handles[i] for i in places],
            ["x"] * len(handles),
            ncols=max(1, self.legend_columns),
            loc="upper left",
            bbox_to_anchor=(left, 1 - (_TITLE - 0.06) * inch),
            fontsize=9,
            handlelength=1.2,
            labelspacing=0.45,
            columnspacing=1.6,
            **style,
        )
        # afterwards: names are not formulas, and a leading "_" would hide an entry
        for entry, i in zip(legend.get_texts(), places, strict=True):
            entry.set_parse_math(False)
            entry.set_fontfamily(self.family)
            entry.set_text(names[i])
        if self.tracks:
            fading: Any = tuple(Patch(facecolor=fade(_INK, strength)) for strength in _FADING)  # for its handler
            self.figure.legend(
                [fading],
                ["band: the paler, the lower its mean score"],
                handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
                loc="upper right",
                bbox_to_anchor=(1 - _RIGHT / _WIDTH, 1 - 0.46 * inch),
                fontsize=8.5,
                handlelength=2.5,
                **style,
            )

    def _summary(self) -> str:
        count = len(self.timeline.tracks)
        found = {0: "no face", 1: "1 face track"}.get(count, f"{count} face tracks")
        left_out = count - len(self.tracks)
        shown = f", the longest {len(self.tracks)} are shown, {left_out} are left out" if left_out else ""
        return f"{_tick_text(self.timeline.duration, self.until)}{' s' * (self.until < 120)}  ·  {found}{shown}"

    def _draw_time_axis(self) -> "Axes":
        """Ticks and grid lines behind all rows."""
        axes = self._axes("time", self.header, self.height - self.header - _BOTTOM)
        ticks = _time_ticks(self.until)
        axes.set_xticks(ticks, [_tick_text(tick, self.until) for tick in ticks], fontsize=9, color=_INK)
        axes.tick_params(axis="x", length=4, color=_PALE, top=len(self.tracks) > 3, labeltop=len(self.tracks) > 3)
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines["bottom"].set(visible=True, color=_PALE)
        axes.set_xlabel("time in seconds" if self.until < 120 else "time", fontsize=10, color=_INK)
        return axes

    def _draw_cuts(self) -> None:
        axes = self._axes("cuts", self.header, self.height - self.header - _BOTTOM)
        axes.set_zorder(1)
        faint = min(1.0, _MAX_CUTS / max(1, len(self.timeline.cuts)))
        for cut in self.timeline.cuts:
            axes.axvline(cut, color=_INK, linewidth=max(0.4, faint), alpha=max(0.3, 0.8 * faint), dashes=(4, 2))

    def _draw_track(self, face: FaceTimeline, top: float) -> None:
        if face.thumbnails:
            self._draw_thumbnails(face, self._axes(f"thumbnails {face.track}", top, _THUMBNAILS))
            top += _THUMBNAILS + _INNER_GAP
        scores = self._axes(f"scores {face.track}", top, self.scores_height)
        self._draw_scores(face, scores)
        self._draw_segments(face, self._axes(f"segments {face.track}", top + self.scores_height + _INNER_GAP, _BAND))
        self._draw_description(face, scores)

    def _draw_description(self, face: FaceTimeline, axes: "Axes") -> None:
        """Number, times and main expressions of a track, left of its scores."""
        means = face.mean_scores
        main = means.argsort()[::-1][:2]
        unit = " s" * (self.until < 120)
        lines = [
            f"{_tick_text(face.start, self.until)} – {_tick_text(face.end, self.until)}{unit}",
            *(f"{shorten(self.names[self.timeline.labels[i]], 16, keep='ends')} {100 * means[i]:.0f} %" for i in main),
        ]
        left = -(_LEFT - 0.15) / _PLOT_WIDTH
        style: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "parse_math": False}
        axes.text(left, 1, f"#{face.track}", fontsize=13, weight="bold", color=_INK, **style)
        below = 1 - 0.24 / self.scores_height
        style["family"] = self.family
        axes.text(left, below, "\n".join(lines), fontsize=8.5, color="#444444", linespacing=1.35, **style)

    def _draw_thumbnails(self, face: FaceTimeline, axes: "Axes") -> None:
        axes.set_ylim(0, 1)
        axes.set_zorder(2)
        for middle, width, time, picture in self._place_thumbnails(face):
            segment = face.segment_at(time)
            colour = fade(self.colours[segment.label], segment.score)
            image = axes.imshow(
                picture,
                extent=(middle - width / 2, middle + width / 2, 0, 1),
                aspect="auto",
                interpolation="antialiased",
            )
            image.set_clip_on(False)
            axes.add_patch(
                _rectangle(middle - width / 2, width, facecolor="none", edgecolor=colour, linewidth=1.8, clip_on=False)
            )
        axes.set_xlim(0, self.until)

    def _place_thumbnails(self, face: FaceTimeline) -> list[tuple[float, float, float, np.ndarray]]:
        """
        Middle and width on the time axis, time, and picture: as many as fit beside each other, spread over the track,
        none over the edges of the plot.
        """
        second = _PLOT_WIDTH / self.until  # inches
        pictures = sorted(face.thumbnails, key=lambda thumbnail: thumbnail[0])
        times = np.array([time for time, _ in pictures])
        widths = [_THUMBNAILS * picture.shape[1] / picture.shape[0] / second for _, picture in pictures]
        step = 1.08 * max(widths)
        length = face.end - face.start
        for slots in range(max(1, int(length / step)), 0, -1):
            wanted = face.start + (np.arange(slots) + 0.5) / slots * length
            placed = []
            for index in dict.fromkeys(int(np.abs(times - time).argmin()) for time in wanted):
                half = widths[index] / 2
                middle = min(max(times[index], half), self.until - half)
                placed.append((middle, widths[index], float(times[index]), pictures[index][1]))
            if all(b[0] - a[0] >= (a[1] + b[1]) / 2 for a, b in pairwise(placed)):
                break
        return placed

    def _draw_scores(self, face: FaceTimeline, axes: "Axes") -> None:
        times, scores = _thin_out(face.times, face.scores)
        # as `scores_at` has it, the scores before the first window's middle are those of the first window
        times = np.concatenate([[face.start], times, [face.end]])
        scores = np.concatenate([scores[:1], scores, scores[-1:]])
        colours = [self.colours[label] for label in self.timeline.labels]
        axes.stackplot(times, scores.T, colors=colours, labels=self.timeline.labels, linewidth=0)
        axes.set_xlim(0, self.until)
        axes.set_ylim(0, 1)
        axes.yaxis.tick_right()
        axes.set_yticks([0, 0.5, 1], ["0", "50", "100 %"], fontsize=7.5, color=_PALE)
        for height in (0, 0.5, 1):
            axes.axhline(height, color="#BBBBBB" if height != 0.5 else "white", linewidth=0.6, alpha=0.7)

    def _draw_segments(self, face: FaceTimeline, axes: "Axes") -> None:
        axes.set_ylim(0, 1)
        axes.set_zorder(2)
        second = _PLOT_WIDTH / self.until
        for segment in face.segments:
            colour = fade(self.colours[segment.label], segment.score)
            length = segment.end - segment.start
            # a white rim would swallow the shortest ones
            rim = 0.8 if length * second > 0.06 else 0
            axes.add_patch(_rectangle(segment.start, length, facecolor=colour, edgecolor="white", linewidth=rim))
            name = self.names[segment.label]
            room = length * second - 0.08
            if self._text_width(name) < room:
                scored = f"{name} {100 * segment.score:.0f} %"
                text = scored if self._text_width(scored) < room else name
                middle = (segment.start + segment.end) / 2
                style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 9, "parse_math": False}
                style["family"] = self.family
                axes.text(middle, 0.5, text, color=text_colour(colour), **style)
        # in full colours, so that the palest ones are still seen
        axes.hlines(
            [_LINE / 2 / (72 * _BAND)] * len(face.segments),
            [segment.start for segment in face.segments],
            [segment.end for segment in face.segments],
            colors=[self.colours[segment.label] for segment in face.segments],
            linewidth=_LINE,
        )
        axes.set_xlim(0, self.until)


def _choose_tracks(tracks: list[FaceTimeline]) -> list[FaceTimeline]:
    """The longest ones, in their order."""
    longest = sorted(tracks, key=lambda face: face.start - face.end)[:MAX_TRACKS]
    return [face for face in tracks if any(face is other for other in longest)]


def _thin_out(times: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages neighbouring windows where there are more of them than the plot can show."""
    size = -(-len(times) // _MAX_POINTS)
    if size == 1:
        return times, scores
    firsts = np.arange(0, len(times), size)
    counts = np.diff([*firsts, len(times)])
    return np.add.reduceat(times, firsts) / counts, np.add.reduceat(scores, firsts, axis=0) / counts[:, None]


def _row_by_row(count: int, columns: int) -> list[int]:
    """An order of `count` entries that a legend, which fills column by column, shows row by row."""
    return [entry for column in range(columns) for entry in range(column, count, columns)]


def _time_ticks(until: float) -> list[float]:
    """Times at full steps, about ten of them."""
    if until < 10:
        from matplotlib.ticker import MaxNLocator

        ticks = MaxNLocator(10, steps=[1, 2, 5, 10]).tick_values(0, until)
        return [float(tick) for tick in ticks if 0 <= tick <= until * 1.0001]
    step = next((step for step in _TICK_STEPS if until / step <= 13), 3600 * -(-until // (13 * 3600)))
    return np.arange(0, until * 1.0001, step).tolist()


def _tick_text(seconds: float, until: float) -> str:
    """A time as seconds, m:ss or h:mm:ss, whichever suits a video that lasts `until`."""
    if until < 120:
        return f"{round(seconds, 1 if until >= 2 else 3):g}"
    whole = round(seconds)
    if until < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _characters_of_bold_fonts() -> set[int]:
    """Code points that matplotlib's bold fonts have; it looks through all that are set."""
    from matplotlib.font_manager import FontProperties, findfont

    files = [findfont(FontProperties(weight="bold"))]
    for family in FontProperties().get_family():
        try:
            files.append(findfont(FontProperties(family=[family], weight="bold"), fallback_to_default=False))
        except ValueError:  # not installed
            continue
    return {character for file in files for character in characters_of(Path(file))}


def _drawable(text: str, known: Collection[int]) -> str:
    """
    With boxes for characters that are not among the `known` ones, which matplotlib warns of, and for bytes that are
    no text (Python's lone surrogates), on which it fails; white space becomes spaces.
    """
    box = "□" if ord("□") in known else "?"
    spaced = (" " if character.isspace() else character for character in text)
    return "".join(character if ord(character) in known else box for character in spaced)


def _rectangle(left: float, width: float, **style: Any) -> "Patch":
    from matplotlib.patches import Rectangle

    return Rectangle((left, 0), width, 1, **style)
