"""Videos of many kinds, made on the spot. Each picture shows its number, which survives compression and scaling."""

import io
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

HEIGHT, WIDTH, BARS = 96, 160, 10
# libx265's parameters for groups of pictures that reach into each other
X265 = "log-level=none:open-gop=1:keyint=50:min-keyint=50:bframes=3:scenecut=0"


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture whose lowest sixth shows the number as ten bars, the lowest bit at the left, over moving colours."""
    rows, columns = np.mgrid[:height, :width]
    picture = np.stack(
        [
            60 + 100 * columns / width,
            np.full((height, width), 60 + 10 * (number % 12)),
            60 + (rows + 5 * number) % height * 100 / height,
        ],
        axis=-1,
    ).astype(np.uint8)
    bits = (number >> np.arange(BARS)) & 1
    picture[-(height // 6) :] = bits[np.arange(width) * BARS // width][None, :, None] * 220 + 16
    return picture


def as_array(picture: Any) -> np.ndarray:
    """`(height, width, 3)` of a tensor `(3, height, width)` or of an array that has this form already."""
    return picture.permute(1, 2, 0).numpy() if isinstance(picture, torch.Tensor) else picture


def number_of(picture: Any, bars: int = BARS, top: float = 1 / 6, bar: float = 1 / BARS) -> int:
    """The number that a picture of any size shows; `top` and `bar` are the bars' height and width as fractions."""
    picture = as_array(picture)
    height, width = picture.shape[:2]
    rows = slice(round(height * (1 - 0.7 * top)), round(height * (1 - 0.3 * top)))
    number = 0
    for i in range(bars):
        columns = slice(round((i + 0.3) * bar * width), round((i + 0.7) * bar * width))
        number |= int(picture[rows, columns].mean() > 128) << i
    return number


def case_number(picture: Any) -> int:
    """The number in a frame of the files in `shared/cases`: 12 bars of 24 pixels, 24 high, of 640x360."""
    return number_of(picture, bars=12, top=24 / 360, bar=24 / 640)


def make_video(
    target: str | Path | io.BytesIO,
    pictures: Iterable[np.ndarray | av.VideoFrame],
    codec: str = "libx264",
    *,
    rate: int | Fraction = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    pix_fmt: str = "yuv420p",
    gop: int | None = None,
    b_frames: int | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    container_options: dict[str, str] | None = None,
    sound: tuple[str, float, float] | None = None,
    prepare: Callable[[Any], None] | None = None,
) -> Any:
    """
    Encodes pictures, RGB arrays or frames.

    Args:
        pts: A time for each picture, in `time_base`; `rate` pictures a second if not given.
        sound: Codec, first second and last second of a tone.
        prepare: Is given the codec's context before anything is encoded.
    """
    time_base = time_base or 1 / Fraction(rate)
    fast = {
        "libx264": {"preset": "veryfast", "crf": "20"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    }
    fast |= {"libvpx": {"cpu-used": "8", "deadline": "realtime", "b": "1000000"}}
    fast |= {"libvpx-vp9": {"cpu-used": "8", "deadline": "realtime"}, "libsvtav1": {"preset": "8"}}
    options = fast.get(codec, {}) | (options or {})
    file = str(target) if isinstance(target, Path) else target
    with av.open(file, "w", format=container_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        tone = container.add_stream(sound[0], rate=48000) if sound else None
        packets = []
        for i, picture in enumerate(pictures):
            frame = picture
            if isinstance(picture, np.ndarray):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if i == 0:
                context = stream.codec_context
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pix_fmt
                context.time_base = time_base
                context.thread_count = 1
                if codec in ("mpeg4", "mjpeg", "mpeg1video", "mpeg2video", "flv", "wmv2", "h263"):
                    context.bit_rate = 2_000_000
                if gop is not None:
                    context.gop_size = gop
                if b_frames is not None:
                    context.max_b_frames = b_frames
                if aspect is not None:
                    context.sample_aspect_ratio = aspect
                if prepare is not None:
                    prepare(context)
            frame.pts, frame.time_base = i if pts is None else pts[i], time_base
            packets += stream.encode(frame)
        packets += stream.encode()
        if tone is not None:
            packets += _tone(tone, *sound[1:])
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return target


def _tone(stream: Any, first: float, last: float) -> list[av.Packet]:
    samples = np.arange(round(first * 48000), round(last * 48000))
    wave = 0.2 * np.sin(2 * np.pi * 440 * samples / 48000).astype(np.float32)
    stream.codec_context.layout = "mono"
    resampler = av.AudioResampler(stream.codec_context.format, "mono", 48000)
    packets = []
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="flt", layout="mono")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        frame.pts = int(samples[start])
        for part in resampler.resample(frame):
            packets += stream.encode(part)
    return packets + list(stream.encode())


def copy_packets(
    source: Path,
    target: Path,
    shift: float = 0.0,
    keeps: Callable[[av.Packet], bool] = lambda packet: True,
    moves: Callable[[av.Packet], float] = lambda packet: 0.0,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A copy without encoding anew, of the packets that `keeps` says, `shift` and `moves(packet)` seconds later."""
    with av.open(str(source)) as read, av.open(str(target), "w", options=container_options or {}) as written:
        streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.size == 0 or not keeps(packet):
                continue
            later = round((shift + moves(packet)) / packet.time_base)
            packet.pts, packet.dts = packet.pts + later, packet.dts + later
            packet.stream = streams[packet.stream.index]
            written.mux(packet)
    return target


def plain_decode(source: Path) -> list[av.VideoFrame]:
    """Every frame that can be decoded, from the start and in order, by PyAV alone."""
    frames = []
    with av.open(str(source), metadata_errors="replace") as container:
        for packet in container.demux(container.streams.video[0]):
            try:
                frames += packet.decode()
            except av.error.InvalidDataError:
                continue
    return frames


def plain_rgb(frame: av.VideoFrame, width: int | None = None, height: int | None = None) -> np.ndarray:
    """A frame of limited range and low definition, which has no matrix of its own, in RGB."""
    colours = {"src_colorspace": "ITU601", "dst_colorspace": "ITU601"}
    colours |= {"src_color_range": "MPEG", "dst_color_range": "JPEG"}
    return frame.to_ndarray(format="rgb24", width=width, height=height, **colours)


def yuv_to_rgb(planes: np.ndarray, kr: float, kb: float, is_full: bool, bits: int = 8) -> np.ndarray:
    """Y, U and V `(..., 3)` as the standards' formula has them in RGB, 0 to 255."""
    planes = np.asarray(planes, np.float64) / 2 ** (bits - 8)
    y, u, v = planes[..., 0], planes[..., 1] - 128, planes[..., 2] - 128
    if is_full:
        y, u, v = y / 255, u / 255, v / 255
    else:
        y, u, v = (y - 16) / 219, u / 224, v / 224
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return (np.stack([red, green, blue], axis=-1) * 255).clip(0, 255)
