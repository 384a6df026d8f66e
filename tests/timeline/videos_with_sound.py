"""Videos in which a bright picture and a tone begin together, and what a file holds of both."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from s2d_hf.timeline.streaming import open_stream

RATE = 44100
SWITCH = 1.0  # seconds, when the picture turns bright and the tone begins


def write_video_with_sound(
    path: Path,
    frames: list[np.ndarray],
    times: list[Fraction] | None = None,
    sound: str | None = "aac",
    pix_fmt: str = "yuv420p",
    video: str = "libx264",
    start: Fraction = Fraction(0),
) -> Path:
    """
    RGB frames at `times` in seconds (25 a second), and two tones, one in each ear, which begin at `SWITCH`; everything
    is `start` seconds later in the file.
    """
    times = [Fraction(i, 25) for i in range(len(frames))] if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream(video, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            ears = container.add_stream(sound, rate=RATE if sound != "libopus" else 48000, layout="stereo")
        for time, image in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round((time + start) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            seconds = np.arange(round(float(times[-1]) * RATE)) / RATE
            tone = 12000 * np.sin(2 * np.pi * np.array([[440], [523]]) * seconds) * (seconds >= SWITCH)
            for first in range(0, len(seconds), 1024):
                samples = tone[:, first : first + 1024].T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(samples.astype(np.int16), format="s16", layout="stereo")
                frame.rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = first + round(start * RATE)
                container.mux(ears.encode(frame))
            container.mux(ears.encode())
    return path


def read_frames(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with open_stream(path) as stream:
        frames = [(frame.time, stream.to_rgb(frame.picture)) for frame in stream.frames()]
    return [time for time, _ in frames], [pixels for _, pixels in frames]


def read_sound(path: Path) -> list[tuple[float, bytes]]:
    """Times and contents of the packets."""
    with av.open(str(path)) as container:
        return [
            (float(packet.pts * packet.time_base), bytes(packet)) for packet in container.demux(audio=0) if packet.size
        ]


def read_times(path: Path) -> list[float]:
    """Times of the pictures as the file has them."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def tone_delay(path: Path) -> float:
    """Seconds from the first bright picture to the first loud sample."""
    with av.open(str(path)) as container:
        bright = next(f.time for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 128)
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16p", layout="stereo")
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                loud = np.flatnonzero(np.abs(part.to_ndarray()[0].astype(int)) > 1000)
                if loud.size:
                    return float(part.pts * part.time_base) + loud[0] / part.rate - bright
    raise AssertionError("There is no tone.")


def scene(height: int = 360, width: int = 640) -> np.ndarray:
    """A quiet background without sharp edges, which compression hardly changes."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([90 + 60 * columns / width, 100 + 50 * rows / height, np.full(rows.shape, 120)], -1).astype(
        np.uint8
    )
