"""The video of a timeline: boxes, labels and bars drawn on its frames, with its sound."""

import math
import os
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from ..colors import label_colours, text_colour, to_rgb
from ..file_names_s2d import is_url
from ..video_files_s2d import SoundPacket, VideoFile, VideoSource, open_video
from .fonts import characters_of, escape_missing, find_font, warn_of_escapes
from .tracks import FaceTimeline, FaceTracks

# decoders of the sound that players expect in an MP4; other sound is encoded anew
_COPIED_CODECS = ("aac", "ac3", "alac", "eac3", "flac", "libopus", "mp3", "mp3float", "opus")
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_AAC_LAYOUTS = {1: "mono", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}  # by the number of channels

_FEW_ROWS = 4
_MANY_FACES = 4  # from here on, panels without a free place are left out
_DARK = (18, 18, 18)


def annotate_video(
    timeline: FaceTracks,
    path: str | os.PathLike,
    source: str | os.PathLike | None = None,
    progress: bool = True,
    on_progress: Callable[[float], None] | None = None,
) -> Path:
    """
    Writes a video with what its timeline says drawn on it, as H.264 (yuv420p) in an MP4 file.

    Each face has its square, in the colour of the label that is most probable at that moment, a tag with its track,
    that label and its score, and beside it a panel with bars of the labels' scores at that moment, the highest first:
    of all labels, or of the highest four where all take too much of the picture. Frames keep their times, and the
    sound is copied (encoded as AAC where its codec doesn't belong into MP4). The target is there only once it is
    complete.

    Args:
        timeline ([`FaceTracks`]): What to draw. Without tracks, the video is only encoded anew.
        path (`str` or `os.PathLike`): The file to write, ending in .mp4; folders that are missing are made.
        source (`str` or `os.PathLike`, *optional*): The video file or http(s) address, if it is no longer where
            `timeline.source` says.
        progress (`bool`): Show a progress bar.
        on_progress (`Callable`, *optional*): Called with the time of every frame that was drawn, in seconds. It may
            raise an exception, which ends the drawing.

    Returns:
        `Path`: the file.

    Raises:
        FileNotFoundError: if the source is not there.
        ValueError: if `path` doesn't end in .mp4 or is the source, or the source is a camera, a folder, unreadable,
            or has other frames than those of the timeline.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"`path` must end in .mp4, got {str(path)!r}.")
    video = _find_source(timeline.source if source is None else source)
    if path.exists() and not is_url(video) and os.path.samefile(path, video):
        raise ValueError(f"{path} is the source itself: choose another `path` for the annotated video.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder, as only there it can be renamed in one step
    unfinished = path.with_name(f".{uuid.uuid4().hex}.part.mp4")
    try:
        _write_video(timeline, video, unfinished, progress, on_progress)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _find_source(source: str | os.PathLike | int) -> str:
    name = str(source)
    if is_url(name) or os.path.isfile(name):
        return name
    if os.path.isdir(name):
        raise ValueError(
            f"{name} is a folder of frames, and only a video file can be annotated: pass it as `source=`."
        )
    if isinstance(source, int) or name.removeprefix("camera ").isdecimal():
        raise ValueError(
            f"{name!r} is a camera, which left no file: pass a recording of the same frames as `source=`."
        )
    raise FileNotFoundError(f"There is no video file {name}: pass `source=`, where it is now.")


def _write_video(
    timeline: FaceTracks,
    source: str,
    path: Path,
    progress: bool,
    on_progress: Callable[[float], None] | None,
) -> None:
    painter = FramePainter(timeline)
    with open_video(source, with_sound=True, tells_damage=False) as stream, av.open(
        str(path), "w", format="mp4", options={"movflags": "+faststart"}
    ) as output:  # fmt: skip
        if (stream.width, stream.height) != (timeline.width, timeline.height):
            raise ValueError(
                f"{source} has frames of {stream.width}x{stream.height} pixels, and the timeline is of a video of "
                f"{timeline.width}x{timeline.height}."
            )
        time_base = _choose_time_base(stream)
        video = _add_video(output, stream, time_base)
        sound = _SoundWriter(stream, output)
        with _progress_bar(stream.duration, progress) as bar:
            latest = -1
            for time, picture, _ in stream.frames():
                pixels = stream.to_rgb(picture)
                if not pixels.flags.writeable:
                    pixels = pixels.copy()
                painter.draw(pixels, time)
                sound.write_until(time)
                frame = _to_video_frame(pixels)
                # strictly ascending, as the container needs them
                latest = frame.pts = max(latest + 1, round(time / time_base))
                frame.time_base = time_base
                output.mux(video.encode(frame))
                bar.update(time - bar.n)
                if on_progress is not None:
                    on_progress(time)
            sound.finish()
            output.mux(video.encode())
            bar.update(max(0.0, (bar.total or 0.0) - bar.n))


def _choose_time_base(stream: VideoSource) -> Fraction:
    """The unit of the file's own times, if it is neither coarse nor so fine that a long gap would not fit into MP4."""
    own = stream.time_base if isinstance(stream, VideoFile) else Fraction(1, 90000)
    return own if 1000 <= 1 / own <= 90000 else Fraction(1, 90000)


def _add_video(output: av.container.OutputContainer, stream: VideoSource, time_base: Fraction) -> av.VideoStream:
    rate = getattr(stream, "rate", None) or Fraction(25)
    video = output.add_stream(
        "libx264", rate=rate.limit_denominator(60000), options={"crf": "20", "preset": "veryfast"}
    )
    video.width, video.height = stream.width + stream.width % 2, stream.height + stream.height % 2
    video.pix_fmt = "yuv420p"
    context = video.codec_context
    context.time_base = time_base
    # BT.709, limited range
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
    return video


def _to_video_frame(pixels: np.ndarray) -> av.VideoFrame:
    """RGB `(height, width, 3)` as yuv420p; an odd side is lengthened by a copy of its last row or column."""
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        pixels = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
    )


class _SoundWriter:
    """
    Writes the sound of a video beside its pictures, at the player's times. Sound and pictures take turns in the file,
    so that neither has to wait in memory for long.
    """

    def __init__(self, video: VideoSource, output: av.container.OutputContainer):
        self.output = output
        self.offsets = getattr(video, "offsets", [0.0])
        self.arriving: deque[SoundPacket] = getattr(video, "sound", deque())
        self.waiting: dict[int, deque[SoundPacket]] = {}
        self.targets: dict[int, av.AudioStream] = {}
        self.latest: dict[int, int] = {}  # the earliest time of the next packet of each stream that is copied
        self.ends: dict[int, Fraction] = {}  # of each stream that is encoded anew, in seconds
        self.forms: dict[int, tuple] = {}
        self.resamplers: dict[int, av.AudioResampler] = {}
        # the streams have to be there before the first packet of any is written
        for stream in video.container.streams.audio if isinstance(video, VideoFile) else ():
            if stream.codec_context is not None:  # a decoder knows it
                add = output.add_stream_from_template if _is_copied(stream) else partial(_add_aac, output)
                self.targets[stream.index] = add(stream)
                self.waiting[stream.index] = deque()

    def write_until(self, time: float) -> None:
        """Writes what is heard up to a time, in seconds, as far as it has been read."""
        while self.arriving:
            sound = self.arriving.popleft()
            self.waiting[sound.packet.stream.index].append(sound)
        for packets in self.waiting.values():
            # where recordings follow each other, the pictures tell by how much the times of the next are behind
            while packets and packets[0].recording < len(self.offsets):
                start = self._start_of(packets[0])
                if start is not None and start > time:
                    break
                self._write(*packets.popleft())

    def finish(self) -> None:
        """Writes the rest."""
        self.offsets = [*self.offsets, *self.offsets[-1:] * 1000]  # sound may start again where no picture does
        self.write_until(float("inf"))
        for index, target in self.targets.items():
            if target.codec_context.is_encoder and index in self.ends:
                self.output.mux(target.encode())

    def _start_of(self, sound: SoundPacket) -> float | None:
        packet, recording = sound
        return None if packet.dts is None else float(packet.dts * packet.time_base) + self.offsets[recording]

    def _resampler(self, stream: av.AudioStream, target: av.AudioStream, frame: av.AudioFrame) -> av.AudioResampler:
        """To the encoder's form. It is made anew where sound changes midway, as between the parts of a broadcast."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self.forms.get(stream.index) != form:
            self.forms[stream.index] = form
            context = target.codec_context
            self.resamplers[stream.index] = av.AudioResampler("fltp", context.layout, context.sample_rate)
        return self.resamplers[stream.index]

    def _write(self, packet: av.Packet, recording: int) -> None:
        stream, target = packet.stream, self.targets[packet.stream.index]
        if not _is_copied(stream):
            for frame in _decode(packet):
                begun = self.ends.get(stream.index)
                start = begun if frame.time is None else Fraction(frame.time) + Fraction(self.offsets[recording])
                start = start or Fraction(0)
                start = start if begun is None else max(begun, start)
                self.ends[stream.index] = start + Fraction(frame.samples, frame.sample_rate)
                frame.pts, frame.time_base = round(start * frame.sample_rate), Fraction(1, frame.sample_rate)
                for part in self._resampler(stream, target, frame).resample(frame):
                    self.output.mux(target.encode(part))
        elif packet.dts is not None:  # the one at the end is empty
            shift = round(self.offsets[recording] / packet.time_base)
            dts = packet.dts + shift
            pts = dts if packet.pts is None else packet.pts + shift
            late = max(0, self.latest.get(stream.index, dts) - dts)
            packet.dts, packet.pts = dts + late, pts + late
            # where recordings meet, sound may overlap; and times are rounded, so that half a packet is far enough
            one_sample = math.ceil(1 / (stream.rate * packet.time_base))
            self.latest[stream.index] = packet.dts + max(one_sample, (packet.duration or 0) // 2)
            packet.stream = target
            self.output.mux(packet)


def _add_aac(output: av.container.OutputContainer, stream: av.AudioStream) -> av.AudioStream:
    rate = stream.rate if stream.rate in _AAC_RATES else 48000
    return output.add_stream("aac", rate=rate, layout=_AAC_LAYOUTS.get(stream.layout.nb_channels, "stereo"))


def _is_copied(stream: av.AudioStream) -> bool:
    return stream.codec_context.name in _COPIED_CODECS


def _decode(packet: Any) -> Sequence[av.AudioFrame]:  # by PyAV's hints, any packet is of pictures
    try:
        return packet.decode()
    except (av.FFmpegError, OSError):  # a damaged one
        return ()


def _progress_bar(duration: float | None, progress: bool) -> tqdm:
    known = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s [{elapsed}<{remaining}]"
    form = known if duration else "{desc}: {n:.1f} s [{elapsed}]"
    return tqdm(total=duration or None, desc="Annotating", bar_format=form, disable=not progress)


class _Rectangle(NamedTuple):
    """In pixels; `right` and `bottom` lie outside."""

    left: float
    top: float
    right: float
    bottom: float


class _Obstacles:
    """What a tag or panel had better not cover: faces, above all their middles, and other tags and panels."""

    def __init__(self, boxes: Sequence[_Rectangle]):
        faces = np.array(boxes)
        inset = 0.15 * (faces[:, 2:] - faces[:, :2])
        middles = faces + np.concatenate([inset, -inset], axis=1)
        self.areas = np.concatenate([faces, middles])
        self.weights = np.repeat([1.0, 3.0], len(faces))

    def add(self, drawn: _Rectangle) -> None:
        self.areas = np.concatenate([self.areas, [drawn]])
        self.weights = np.append(self.weights, 2.0)

    def costs(self, places: Sequence[_Rectangle]) -> np.ndarray:
        """How much of each place's own area covers them, weighted: `(num_places,)`."""
        own = np.array(places, dtype=float)[:, None]
        sides = np.minimum(own[..., 2:], self.areas[:, 2:]) - np.maximum(own[..., :2], self.areas[:, :2])
        covered = sides.clip(0).prod(axis=-1) @ self.weights
        return covered / (own[:, 0, 2:] - own[:, 0, :2]).prod(axis=-1)


class _Choice(NamedTuple):
    """One way to draw a panel: its rows, and which of the places around the face it takes."""

    rows: int
    place: int


class FramePainter:
    """
    Draws the faces of a timeline on the frames of its video, in the order of their times.

    Labels, colours and bars are those of the frame's time, linearly between a face's windows. Panels stay where
    they are, relative to their faces, as long as they cover none.

    Args:
        timeline ([`FaceTracks`]): What to draw.
    """

    def __init__(self, timeline: FaceTracks):
        self.timeline = timeline
        self.colours = label_colours(timeline.labels)
        side = min(timeline.width, timeline.height)
        size = max(11, round(0.021 * side))
        self.names, self.fonts = _load_fonts(size, timeline.labels)
        self.font = next(iter(self.fonts.values()), _default_font(size))
        self.line = max(2, round(side / 360))
        # widest text of a line, so that panels and tags keep their sizes while numbers change
        self.name_width = max((self.fonts[label].getlength(name) for label, name in self.names.items()), default=0)
        self.number_width = self.font.getlength("100%")
        self.em = self.font.size
        self.row = round(1.32 * self.em)
        self.pad = round(0.45 * self.em)
        all_rows, few_rows = len(timeline.labels), min(_FEW_ROWS, len(timeline.labels))
        fitting = all_rows if self._panel_size(all_rows)[1] <= 0.25 * side else few_rows
        self.row_choices = list(dict.fromkeys([fitting, few_rows]))
        self.choices: dict[int, _Choice] = {}
        self.tag_places: dict[int, int] = {}

    def draw(self, frame: np.ndarray, time: float) -> None:
        """
        Draws on a frame, in place.

        Args:
            frame (`np.ndarray` of shape `(height, width, 3)`): RGB, uint8, writeable.
            time (`float`): The frame's time in seconds.
        """
        visible = []
        for face in self.timeline.tracks:
            located = face.box_at(self._sampled_time(face, time))
            if located is not None:
                visible.append((face, _turned_corners(*located)))
        if not visible:
            return
        boxes = [_Rectangle(*corners.min(axis=0), *corners.max(axis=0)) for _, corners in visible]
        ranked = [self._ranked_scores(face, time) for face, _ in visible]
        for (_, corners), scores in zip(visible, ranked, strict=True):
            self._draw_box(frame, corners, self.colours[scores[0][0]])
        obstacles = _Obstacles(boxes)
        for (face, _), scores, box in zip(visible, ranked, boxes, strict=True):
            self._draw_tag(frame, face.track, *scores[0], box, obstacles)
        for (face, _), scores, box in zip(visible, ranked, boxes, strict=True):
            self._draw_panel(frame, face.track, scores, box, obstacles, is_crowded=len(visible) >= _MANY_FACES)

    def _sampled_time(self, face: FaceTimeline, time: float) -> float:
        """`time`, or that of the last frame that was sampled, for the few frames of the video behind it."""
        step = 1 / self.timeline.fps
        is_last = face.end > self.timeline.duration - 1.5 * step
        return face.end if is_last and face.end < time < face.end + step else time

    def _ranked_scores(self, face: FaceTimeline, time: float) -> list[tuple[str, float]]:
        """Labels and their scores at a time, the highest first; equal ones in the order of the labels."""
        scores = zip(self.timeline.labels, face.scores_at(time).tolist(), strict=True)
        return sorted(scores, key=lambda item: -item[1])

    def _draw_box(self, frame: np.ndarray, corners: np.ndarray, colour: str) -> None:
        points = np.round(corners * 16).astype(np.int32)
        for width, paint in ((self.line + 2 * max(1, self.line // 2), _DARK), (self.line, to_rgb(colour))):
            cv2.polylines(frame, [points], True, paint, width, cv2.LINE_AA, shift=4)

    def _draw_tag(
        self, frame: np.ndarray, track: int, label: str, score: float, box: _Rectangle, obstacles: _Obstacles
    ) -> None:
        percent = f"{score:.0%}"
        text, font = f"#{track} {self.names[label]} {percent}", self.fonts[label]
        number = font.getlength("0" * len(percent[:-1]) + "%")
        width = round(font.getlength(text.removesuffix(percent)) + number + 2 * self.pad)
        height = round(1.5 * self.em)
        left = box.left - self.line
        tops = (box.top - height - self.line, box.bottom + self.line, box.top + self.line)
        places = [_place_within(frame, left, top, width, height) for top in tops]
        costs = obstacles.costs(places)
        last = self.tag_places.get(track, 0)
        best = last if costs[last] <= costs.min() + 0.1 else int(costs.argmin())
        self.tag_places[track] = best

        colour = self.colours[label]
        picture = _rounded((width, height), (*to_rgb(colour), 240), self.em // 4).copy()
        middle = (self.pad, height / 2)
        # else a name in Hebrew would turn the whole line around
        options: dict[str, Any] = {"direction": "ltr"} if font.layout_engine == ImageFont.Layout.RAQM else {}
        ImageDraw.Draw(picture).text(middle, text, fill=text_colour(colour), font=font, anchor="lm", **options)
        _blend(frame, picture, places[best])
        obstacles.add(places[best])

    def _draw_panel(
        self,
        frame: np.ndarray,
        track: int,
        ranked: list[tuple[str, float]],
        box: _Rectangle,
        obstacles: _Obstacles,
        is_crowded: bool,
    ) -> None:
        placed = self._place_panel(frame, track, box, obstacles, is_crowded)
        if placed is None:
            return
        choice, place = placed
        width, height = self._panel_size(choice.rows)
        picture = _rounded((width, height), (*_DARK, 185), self.em // 3).copy()
        draw = ImageDraw.Draw(picture)
        left = round(2 * self.pad + self.name_width)
        full = width - left - round(2 * self.pad + self.number_width)
        for row, (label, score) in enumerate(ranked[: choice.rows]):
            middle = self.pad + (row + 0.5) * self.row
            half = 0.3 * self.em
            bar = (middle - half, middle + half)
            draw.text((self.pad, middle), self.names[label], fill="white", font=self.fonts[label], anchor="lm")
            draw.rectangle((left, bar[0], left + full - 1, bar[1]), fill=(64, 64, 64, 220))
            end = round(full * min(1.0, max(0.0, score)))
            if end:
                draw.rectangle((left, bar[0], left + end - 1, bar[1]), fill=self.colours[label])
            draw.text((width - self.pad, middle), f"{score:.0%}", fill="white", font=self.font, anchor="rm")
        _blend(frame, picture, place)
        obstacles.add(place)

    def _panel_size(self, rows: int) -> tuple[int, int]:
        width = 4 * self.pad + self.name_width + self.number_width + 4.5 * self.em
        return round(width), rows * self.row + 2 * self.pad

    def _place_panel(
        self, frame: np.ndarray, track: int, box: _Rectangle, obstacles: _Obstacles, is_crowded: bool
    ) -> tuple[_Choice, _Rectangle] | None:
        """
        The first free place beside the face, else the one that covers least. `None` in a frame that is too small, and
        in a crowd where there is no free place or the panel would dwarf the face.
        """
        places: dict[_Choice, _Rectangle] = {}
        for rows in self.row_choices:
            width, height = self._panel_size(rows)
            if (
                width > frame.shape[1]
                or height > frame.shape[0]
                or (is_crowded and height > 1.3 * (box.bottom - box.top))
            ):
                continue
            for index, (left, top) in enumerate(self._corners_around(frame, box, width, height)):
                places[_Choice(rows, index)] = _place_within(frame, left, top, width, height)
        if not places:
            return None
        costs = dict(zip(places, obstacles.costs(list(places.values())).tolist(), strict=True))
        free = [choice for choice, cost in costs.items() if cost <= 0.01]
        if is_crowded and not free:
            return None
        best = free[0] if free else min(costs, key=costs.__getitem__)
        last = self.choices.get(track)
        if last in costs and costs[last] <= max(0.01, 1.2 * costs[best]):
            best = last
        self.choices[track] = best
        return best, places[best]

    def _corners_around(
        self, frame: np.ndarray, box: _Rectangle, width: int, height: int
    ) -> list[tuple[float, float]]:
        """Upper left corners of a panel: beside, below and above the face, and around a large one in the frame's."""
        gap = self.line + self.pad
        tag = round(1.5 * self.em) + self.line
        right, left = box.right + gap, box.left - gap - width
        bottom, far = frame.shape[0] - height - gap, frame.shape[1] - width - gap
        around = [
            (right, box.top), (left, box.top), (right, box.bottom - height), (left, box.bottom - height),
            (box.left, box.bottom + gap), (box.left, box.top - gap - tag - height),
        ]  # fmt: skip
        is_large = box.bottom - box.top > 0.5 * frame.shape[0]
        return [*around, (gap, bottom), (far, bottom), (gap, gap), (far, gap)] if is_large else around


def _turned_corners(box: np.ndarray, angle: float) -> np.ndarray:
    """The corners `(4, 2)` of a square x1, y1, x2, y2 turned about its middle, clockwise on the screen by degrees."""
    x1, y1, x2, y2 = box
    middle = np.array([x1 + x2, y1 + y2]) / 2
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    return (corners - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle


def _place_within(frame: np.ndarray, left: float, top: float, width: int, height: int) -> _Rectangle:
    """A rectangle at whole pixels, moved into the frame."""
    left = round(max(0, min(left, frame.shape[1] - width)))
    top = round(max(0, min(top, frame.shape[0] - height)))
    return _Rectangle(left, top, left + width, top + height)


def _blend(frame: np.ndarray, picture: Image.Image, place: _Rectangle) -> None:
    """Lays an RGBA picture over a part of the frame; what reaches over the frame's edge is cut off."""
    region = frame[int(place.top) : int(place.bottom), int(place.left) : int(place.right)]
    below = Image.fromarray(region)
    below.paste(picture, (0, 0), picture)
    region[:] = np.asarray(below)


@lru_cache(maxsize=256)
def _rounded(size: tuple[int, int], colour: tuple[int, int, int, int], radius: int) -> Image.Image:
    """A rectangle with smooth round corners, RGBA; not to be drawn on."""
    large = Image.new("L", (4 * size[0], 4 * size[1]))
    ImageDraw.Draw(large).rounded_rectangle((0, 0, 4 * size[0] - 1, 4 * size[1] - 1), 4 * radius, fill=colour[3])
    picture = Image.new("RGBA", size, colour[:3])
    picture.putalpha(large.reduce(4))
    return picture


def _default_font(size: int) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))  # the other one has no sizes


def _load_fonts(size: int, labels: Sequence[str]) -> tuple[dict[str, str], dict[str, ImageFont.FreeTypeFont]]:
    """What is drawn for each label, and the font that has it. Pillow takes one font for a text."""
    text = "".join(labels)
    if all(ord(character) <= 0x24F for character in text):
        # Pillow's own font has Latin letters only
        names = {label: " ".join(label.split()) for label in labels}
        return names, dict.fromkeys(labels, _default_font(size))
    whole, plain = find_font(text), find_font("")
    names, fonts = {}, {}
    for label in labels:
        file = whole or find_font(label) or plain
        names[label] = escape_missing(label, characters_of(file))
        fonts[label] = ImageFont.truetype(cast(Path, file), size)  # matplotlib brings a plain one
    warn_of_escapes(names)
    return names, fonts
