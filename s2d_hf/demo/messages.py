"""What the page says, as HTML."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from ..colors import fade, label_colours
from ..texts_s2d import clock, count_of
from ..timeline import FaceTimeline, VideoTimeline
from .limits import PageLimits, span

TOP_LABELS = 3
MAX_FACES = 24

HEADER = """
<header class="s2d-header">
  <h1>Facial expressions over time</h1>
  <p>Drop a video, or record one with the camera: each face in it is followed, and so is the expression it shows.</p>
  {model}
</header>
"""
EXAMPLE_NOTE = """
<p class="s2d-note">The astronaut Eileen Collins. NASA, public domain, from <span>scikit-image</span>.</p>
"""
LIMITS_NOTE = """
<p class="s2d-note">A video of up to {size:g} MB and {duration}.</p>
"""
PLOT_NOTE = """
<p class="s2d-note">Push the timeline sideways to see all of it.</p>
"""

FOOTER = """
<footer class="s2d-footer">
  <p><strong>What this is not.</strong> The labels are expressions as onlookers perceive them, not what a person feels
  or thinks, and the model errs. Do not use them for decisions about people.</p>
  <p><strong>Where your video goes.</strong> {privacy}</p>
</footer>
"""
PRIVACY_LOCAL = (
    "It is analysed by the machine that serves this page and sent nowhere else. Its copy and the results are deleted "
    "within minutes after you close this page, and when the server is stopped."
)
PRIVACY_SHARED = (
    "This page has a public address: between your browser and the machine that analyses the video, it passes through "
    "Gradio's servers. Its copy and the results are deleted within minutes after you close this page, and when the "
    "server is stopped."
)


def header(model_name: str | None, labels: Sequence[str]) -> str:
    """What the page is for and, where `model_name` is given, which model with which labels it runs."""
    if model_name is None:
        return HEADER.format(model="")
    names = escape(", ".join(labels))
    return HEADER.format(
        model=f'<p class="s2d-model">Model: <strong>{escape(model_name)}</strong> <span>({names})</span></p>'
    )


def limits_note(limits: PageLimits) -> str:
    """How large and how long a video may be."""
    return LIMITS_NOTE.format(size=limits.max_upload, duration=span(limits.max_duration))


def footer(shared: bool) -> str:
    """What the labels are not, and where the videos go."""
    return FOOTER.format(privacy=PRIVACY_SHARED if shared else PRIVACY_LOCAL)


def message(kind: str, title: str, text: str = "") -> str:
    """A box with a title and a sentence, of a kind: `done`, `warning` or `error`."""
    role = "alert" if kind == "error" else "status"
    return (
        f'<div class="s2d-message s2d-{kind}" role="{role}"><strong>{escape(title)}</strong>'
        f"{f'<p>{escape(text)}</p>' if text else ''}</div>"
    )


def summary(timeline: VideoTimeline) -> str:
    """How many faces there are in how long a video, or that there are none."""
    seconds = f"{timeline.duration:.1f} s of video"
    if not timeline.tracks:
        return message(
            "warning",
            "No face was found",
            f"Looked at {seconds}. Faces that are very small, turned away, covered or in the dark are missed: a "
            f"closer or brighter shot of the face may help.{_tell_damage(timeline)}",
        )
    count = len(timeline.tracks)
    text = (
        "Someone who leaves and comes back, or is there again after a cut, counts as a new face." if count > 1 else ""
    )
    return message("done", f"{count_of(count, 'face')} in {seconds}", f"{text}{_tell_damage(timeline)}".strip())


def _tell_damage(timeline: VideoTimeline) -> str:
    return f" The video is damaged: {timeline.damage}." if timeline.damage else ""


def face_cards(timeline: VideoTimeline) -> str:
    """A card for each face: a picture of it, when it is there, its strongest expressions and how they change."""
    longest = sorted(timeline.tracks, key=lambda face: face.start - face.end)[:MAX_FACES]
    cards = [_face_card(face, timeline.labels) for face in timeline.tracks if any(face is kept for kept in longest)]
    left_out = len(timeline.tracks) - len(cards)
    note = f"<p>The {left_out} faces seen most briefly are in the downloads only.</p>" if left_out else ""
    return f'<section class="s2d-faces">{"".join(cards)}</section>{note}'


def _face_card(face: FaceTimeline, labels: tuple[str, ...]) -> str:
    scores = face.mean_scores
    colours = label_colours(labels)
    strongest = [(labels[index], float(scores[index])) for index in np.argsort(-scores, kind="stable")[:TOP_LABELS]]
    bars = [_bar(label, score, colours[label]) for label, score in strongest]
    segments = [
        f'<li><span class="s2d-time">{clock(segment.start)} – {clock(segment.end)}</span> '
        f"{_swatch(colours[segment.label], segment.score)} {escape(segment.label)} {segment.score:.0%}</li>"
        for segment in face.segments
    ]
    return f"""
<article class="s2d-face" data-track="{face.track}">
  {_thumbnail(face)}
  <div>
    <h3>Face {face.track} <span class="s2d-time">{clock(face.start)} – {clock(face.end)}</span></h3>
    <ul class="s2d-bars">{"".join(bars)}</ul>
    <details><summary>Over time</summary><ol>{"".join(segments)}</ol></details>
  </div>
</article>"""


def _bar(label: str, score: float, colour: str) -> str:
    filled = f'<span style="width:{score:.1%};background:{colour}"></span>'
    return (
        f'<li><span class="s2d-label">{escape(label)}</span><span class="s2d-track">{filled}</span>'
        f'<span class="s2d-score">{score:.0%}</span></li>'
    )


def _swatch(colour: str, score: float) -> str:
    """As strong as the score, like the band in the plot."""
    return f'<span class="s2d-swatch" style="background:{fade(colour, score)};border-color:{colour}"></span>'


def _thumbnail(face: FaceTimeline) -> str:
    if not face.thumbnails:
        return ""
    _, pixels = face.thumbnails[len(face.thumbnails) // 2]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="Face {face.track}">'
