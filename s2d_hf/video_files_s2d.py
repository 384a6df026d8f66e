"""Video files as streams of frames, in the order and with the times of a player, in constant memory."""

import heapq
import io
import os
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import torch
from av.stream import Disposition
from PIL import ExifTags, Image, ImageOps, ImageSequence
from transformers.utils import logging

from .addresses_s2d import fetched_file
from .file_names_s2d import is_url, on_one_line
from .frames_s2d import scale_to_eight_bit, to_rgb
from .texts_s2d import count_of
from .video_limits_s2d import check_limit, limit_of
from .video_pixels_s2d import PixelReader
from .video_source_s2d import SoundPacket, TimedFrame, VideoSource
from .video_times_s2d import JUMP_AHEAD, JUMP_AHEAD_IN_TRANSPORT, LONGEST_FRAME, PlayerClock, Restarts

logger = logging.get_logger(__name__)

# FFmpeg then tells nobody what it thinks of a file, but counts its errors.
if av.logging.get_level() is None:
    av.logging.set_level(av.logging.PANIC)

# Sound may begin before the picture, or the picture with what can't be shown: the player's clock starts with it. Less,
# and it is the padding of a codec.
_LEAST_LEAD, _MOST_LEAD = 0.05, 3600.0

_MOST_NEW_STREAMS = 100

Part = TypeVar("Part")

# What reads files that hold pictures and sound. FFmpeg has others, for playlists, devices and text, that open further
# files and addresses.
_DEMUXERS = (
    "3g2,3gp,apng,asf,av1,avi,avs,avs2,avs3,bink,cavsvideo,cine,dirac,dnxhd,dv,dxa,evc,ffv1,film_cpk,flic,flv,gif,gxf,"
    "h261,h263,h264,hevc,ivf,ivr,ipmovie,kux,live_flv,lmlm4,m4v,matroska,mjpeg,mjpeg_2000,mov,mp4,mpeg,mpegts,mpegvideo,"
    "mpjpeg,mtv,mv,mxf,nsv,nut,nuv,obu,ogg,pmp,pva,rm,roq,smk,smjpeg,thp,tmv,ty,vc1,vc1test,vivo,vvc,webm,wtv,xmv,"
    "yuv4mpegpipe"
)
# The videos that this process reads just now.
_OPEN: "weakref.WeakSet[VideoFile]" = weakref.WeakSet()

# FFmpeg gives the tiles of these photographs as streams of video, one by one.
_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim", b"ftypheis")
# Files that begin so are pictures, which Pillow reads; so are WebP and AVIF, animated ones, too.
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")


def open_video(
    source: str | os.PathLike | bytes,
    name: str | None = None,
    with_sound: bool = False,
    tells_damage: bool = True,
    starts: bool = True,
) -> VideoSource:
    """
    Opens a video: a file, an http(s) address, or a file's bytes. Animated and still pictures are videos, too. A stream
    of nothing but JPEG pictures is told from a single one by its suffix, `.mjpeg` or `.mjpg`.

    Args:
        source (`str`, `os.PathLike` or `bytes`): What to open. What lies at an address is fetched first.
        name (`str`, *optional*): What messages call it.
        with_sound (`bool`): See [`VideoFile`]'s `sound`.
        tells_damage (`bool`): Warn of what was damaged when the video is closed.
        starts (`bool`): Decode the first frame, so that the size is known.

    Raises:
        FileNotFoundError: if there is no such file, or nothing at the address.
        TypeError: if `source` is neither.
        ValueError: if it is a folder, empty, holds no video or more than the limits allow.
    """
    if not isinstance(source, (str, os.PathLike, bytes)):
        raise TypeError(f"A video must be a path, an address or a file's bytes, got {type(source).__name__}.")
    with ExitStack() as files, ExitStack() as stack:
        if isinstance(source, bytes):
            name = name or "the video"
            if not source:
                raise ValueError(f"{name} is empty (0 bytes).")
            head = source[:16]
        else:
            source = os.fspath(source)
            name = name or source or repr(source)
            if is_url(source):
                source = str(files.enter_context(fetched_file(source)))
            elif os.path.isdir(source):
                raise ValueError(f"{name} is a folder: name a video file.")
            elif not os.path.isfile(source) and not Path(source).is_char_device():
                if source and os.path.exists(source):
                    raise ValueError(f"{name} is no regular file: what comes through a pipe has to be a file first.")
                raise FileNotFoundError(f"There is no video file {name}.")
            elif os.path.isfile(source) and os.path.getsize(source) == 0:
                raise ValueError(f"The video file {name} is empty (0 bytes).")
            head = b""
            if os.path.isfile(source):
                with open(source, "rb") as file:
                    head = file.read(16)
        if head[4:12] in _HEIC:
            raise ValueError(f"{name} is a HEIC photograph, which can't be read: convert it to JPEG.")
        is_picture = head.startswith(_PICTURES) or head[:4] + head[8:12] == b"RIFFWEBP" or head[4:11] == b"ftypavi"
        # recordings of cameras may be nothing but one JPEG behind the other
        is_picture = is_picture and not name.lower().endswith((".mjpeg", ".mjpg"))
        opened = PictureFile(source, name) if is_picture else VideoFile(source, name, with_sound, tells_damage)
        stack.callback(opened.close)
        if starts and isinstance(opened, VideoFile):
            opened.start()
        stack.pop_all()
        opened.release = files.pop_all()
        return opened


def tell_damage(video: VideoSource) -> None:
    """Warns of what was lost or found broken in a video that is closed, if anything was."""
    if video.damage:
        logger.warning(f"{on_one_line(video.name)} is damaged: {video.damage}.")


class VideoFile(VideoSource):
    """
    A video file, decoded by FFmpeg (PyAV) from its start to its end. [`open_video`] opens it.

    - Times are those of a player: 0 is where the recording starts, with its sound if that comes first, and edit lists
      are followed. A recording whose times start again goes on from the last one.
    - Damage is passed over as far as it can be, and said in one warning when the file is closed.

    Attributes:
        container (`av.container.InputContainer`), stream (`av.VideoStream`): PyAV's.
        time_base (`Fraction`): The unit of the frames' times in the file, in seconds.
        rate (`Fraction`, *optional*): Frames a second on average, if known.
        offsets (`list[float]`): For each recording in the file that was met so far, the seconds that its own times are
            behind the player's.
        matrix (`np.ndarray`, *optional*), aspect (`Fraction`): See [`PixelReader`].
        sound (`deque[SoundPacket]`): With `with_sound`, the packets of sound up to the latest frame, to be taken out.
    """

    stream: av.VideoStream | None = None

    def __init__(self, source: str | bytes, name: str, with_sound: bool = False, tells_damage: bool = True):
        self.name = name
        self.release = ExitStack()
        self.with_sound = with_sound
        self.tells_damage = tells_damage
        self.sound: deque[SoundPacket] = deque()
        self._size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
        self._stall = limit_of("S2D_STALL_SECONDS")
        self._counts = {"lost": 0, "corrupt": 0}
        self._errors_before = _count_errors()[0]
        # FFmpeg counts its errors for the whole process
        self._is_alone = not _OPEN
        for other in list(_OPEN):
            other._is_alone = False
        self._first_error = ""
        self._decoded_bytes = self._num_frames = 0
        self._is_complete = self._is_closed = False
        self._raw: Generator[av.VideoFrame, None, None] | None = None
        self._first: av.VideoFrame | None = None
        self._pixels: PixelReader | None = None
        self._decoder: av.VideoCodecContext | None = None
        self._demuxed: list[av.stream.Stream] = []
        self._sounds: list[av.AudioStream] = []
        with _documented_errors(name, "opened"):
            # `file:`, so that no name is taken for another protocol
            self.container: av.container.InputContainer = av.open(
                io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}",
                mode="r",
                # not `options`: handed to streams that turn up late, they crash PyAV 15
                container_options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"},
                metadata_errors="replace",
                timeout=(self._stall, self._stall),
            )
        _OPEN.add(self)
        try:
            with _documented_errors(name, "opened"):
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        container = self.container
        usable = [stream for stream in container.streams.video if stream.codec_context is not None and _moves(stream)]
        if not usable:
            raise ValueError(f"{self.name} has no video stream that can be decoded.")
        best = container.streams.best("video")
        chosen = next((stream for stream in usable if best is not None and stream.index == best.index), usable[0])
        self.stream = chosen
        context = self._decoder = self._choose_decoder(chosen)
        check_limit(
            "S2D_MAX_FRAME_PIXELS", context.width * context.height,
            f"{self.name}: its frames have {context.width}x{context.height} pixels",
        )  # fmt: skip
        context.thread_count, context.thread_type = limit_of("S2D_DECODER_THREADS"), "AUTO"
        context.options = _decoder_options()
        self.time_base: Fraction = chosen.time_base or Fraction(1, 90000)
        rate = chosen.average_rate
        self.rate: Fraction | None = rate if rate and Fraction(1, 3600) <= rate <= 1000 else None
        self.fps = float(self.rate) if self.rate else None
        self._restarts = Restarts(self.jump_ahead)
        states_own_duration = bool(chosen.duration)
        self._sounds = [stream for stream in container.streams.audio if stream.codec_context is not None]
        demuxed: list[Any] = self._sounds if self.with_sound else []
        if not states_own_duration:  # others may outlast the picture
            demuxed = [stream for stream in container.streams if stream.index != chosen.index]
        self._demuxed = [chosen, *demuxed]
        self._others_end = 0.0
        stated = (chosen.duration or 0) * self.time_base or Fraction(container.duration or 0, av.time_base)
        # fewer bytes would not even hold the frames' headers
        if stated > 0 and self._size >= 100 * stated:
            self.duration = float(stated)

    def _choose_decoder(self, stream: av.VideoStream) -> Any:
        """FFmpeg's own one, but for transparent WebM, of which only libvpx sees the transparency."""
        own = stream.codec_context
        name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(own.name)
        if name is None or stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
            return own
        return av.CodecContext.create(name, "r")

    def start(self) -> None:
        """Decodes the first frame, which then waits until it is asked for: it tells the size and how to turn it."""
        with _documented_errors(self.name, "decoded"):
            self._start()

    def _start(self) -> None:
        self._raw = self._decode()
        self._first = next(self._raw, None)
        if self._first is None:
            raise ValueError(self._why_no_frame())
        try:
            self._pixels = PixelReader(self._first, self._held(self.stream).sample_aspect_ratio)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        self.width, self.height = self._pixels.width, self._pixels.height
        self.matrix, self.aspect = self._pixels.matrix, self._pixels.aspect
        self.offsets = [-self._start_time()]

    def _why_no_frame(self) -> str:
        reason = f" ({self._first_error})" if self._first_error and self._is_alone else ""
        if "max pixel count" in reason:
            reason += " If you trust it, set S2D_MAX_FRAME_PIXELS higher in the environment."
        return f"{self.name} could not be decoded: it is truncated, damaged or no video.{reason}"

    def _start_time(self) -> float:
        """Where the player's clock starts, in the file's times in seconds."""
        first = self._held(self._first).time or 0.0
        started = self.container.start_time
        if started is None or not self.has_presentation_times:
            return first
        lead = first - started / av.time_base
        return first - lead if _LEAST_LEAD < lead <= _MOST_LEAD else first

    def close(self) -> None:
        """Lets go of the file, and says what was damaged, once."""
        if self._is_closed:
            return
        self._is_closed = True
        _OPEN.discard(self)
        self.damage = self._describe_damage()
        self.is_sure = self._is_alone or _count_errors()[0] == self._errors_before
        if self._raw is not None:
            self._raw.close()
        if self._decoder is not None:
            # while its threads end, they may not have anything to say
            self._decoder.flush_buffers()
        # its threads end here and now: in a process that is forked, they could not be ended any more
        self.stream = self._decoder = self._raw = self._first = self._pixels = None
        self._demuxed, self._sounds = [], []
        self.sound.clear()
        self.container.close()
        self.release.close()
        if self.tells_damage and self._num_frames:
            tell_damage(self)

    def frames(self) -> Iterator[TimedFrame]:
        """Every frame, with ascending times."""
        clock = PlayerClock(self.offsets, self.jump_ahead, 1 / self.fps if self.fps else 0.04)
        for frame in self.decoded():
            now, after_cut = clock.time_of(frame, self._restarts.count)
            after_cut = self._held(self._pixels).changes_size(frame) or after_cut
            self.seen_until = now + clock.step
            yield TimedFrame(now, frame, after_cut)
        self._is_complete = True

    def packets(self) -> Iterator[av.Packet]:
        """The packets of the picture, without decoding them; of a file that was opened with `starts=False`."""
        return self._demux()

    def has_trouble(self) -> bool:
        """Whether anything was lost or found broken up to now."""
        return any(self._counts.values()) or _count_errors()[0] > self._errors_before

    def decoded(self) -> Iterator[av.VideoFrame]:
        """The frames with the file's own times; see [`frames`]."""
        if self._first is None:
            raise ValueError(f"{self.name} has been read: open it again.")
        yield self._first
        self._first = None
        yield from self._held(self._raw)

    def decoded_from(self, key_pts: int) -> Iterator[av.VideoFrame]:
        """
        The frames from a key frame on, which is known by its time in [`time_base`].

        Raises:
            LookupError: if the file doesn't lead there; raised by the iterator.
        """
        with _documented_errors(self.name, "read"):
            self._held(self._raw).close()
            self.container.seek(key_pts, stream=self._held(self.stream))
            self._held(self._decoder).flush_buffers()
        self._raw = self._decode(key_pts)
        return self._raw

    @property
    def has_presentation_times(self) -> bool:
        """Whether the container says when frames are shown. AVI has but their order, and FFmpeg's guess may zigzag."""
        return self.container.format.name != "avi"

    @property
    def jump_ahead(self) -> float:
        """Seconds by which times may jump ahead before that counts as another recording."""
        is_transport = self.container.format.name in ("mpegts", "mpeg", "mpegvideo")
        return JUMP_AHEAD_IN_TRANSPORT if is_transport else JUMP_AHEAD

    def to_rgb(self, picture: av.VideoFrame) -> np.ndarray:
        """RGB `(height, width, 3)`, uint8."""
        with _documented_errors(self.name, "decoded"):
            return self._held(self._pixels).read(picture)

    def _held(self, part: Part | None) -> Part:
        """What there is from the start until the file is closed."""
        if part is None:
            raise ValueError(f"{self.name} is not open any more, or not started: open it again.")
        return part

    def _demux(self) -> Iterator[av.Packet]:
        """The packets of the picture; those of sound are laid aside."""
        picture = self._held(self.stream).index
        breaks = {stream.index: Restarts(self.jump_ahead) for stream in self._sounds}
        packets = self.container.demux(*self._demuxed)
        while True:
            try:
                with _documented_errors(self.name, "read"):
                    packet = next(packets, None)
            except IndexError:
                # a stream that turns up midway: PyAV knows it when it begins to demux anew, where it was
                self._counts["lost"] += 1
                if self._counts["lost"] > _MOST_NEW_STREAMS:
                    return
                packets = self.container.demux(*self._demuxed)
                continue
            except ValueError:
                if not self._num_frames:
                    raise
                self._counts["lost"] += 1
                return
            if packet is None:
                return
            index = packet.stream.index
            if index == picture:
                yield packet
                continue
            if packet.pts is not None:
                self._others_end = max(
                    self._others_end, float((packet.pts + (packet.duration or 0)) * packet.time_base)
                )
            if self.with_sound and index in breaks:
                self.sound.append(SoundPacket(packet, breaks[index].count_up_to(packet)))

    def _decode(self, key_pts: int | None = None) -> Generator[av.VideoFrame, None, None]:
        latest, has_entered = time.monotonic(), False
        restarts, recent = self._restarts, deque[bool](maxlen=3)
        places: list[int] = []  # of packets whose frames are still to come, the first one first
        for packet in self._demux():
            if key_pts is not None and packet.size:
                if not has_entered and not (packet.is_keyframe and packet.pts == key_pts):
                    raise LookupError(f"{self.name} has no key frame at {key_pts}.")
                has_entered = True
                if packet.pts is not None and packet.pts < key_pts:
                    continue  # shown before the key frame, and made of frames that were jumped over
            num_restarts = restarts.count
            if restarts.count_up_to(packet) > num_restarts:
                # where recordings were joined, one of the first one's last packets is marked, and nothing is lost
                self._counts["corrupt"] -= sum(recent)
            recent.append(packet.is_corrupt)
            self._counts["corrupt"] += packet.is_corrupt
            place = None if self.has_presentation_times or not packet.size else packet.dts
            if place is not None:
                heapq.heappush(places, place)
            try:
                decoded = self._held(self._decoder).decode(packet)
            except (av.FFmpegError, OSError, MemoryError):
                self._counts["lost"] += 1
                self._first_error = self._first_error or _count_errors()[1]
                decoded = []
                if place is not None:
                    places.remove(place)
                    heapq.heapify(places)
            for frame in decoded:
                if places:
                    frame.pts = heapq.heappop(places)
                self._num_frames += 1
                self._decoded_bytes += 3 * frame.width * frame.height
                self._counts["corrupt"] += frame.is_corrupt
                check_limit("S2D_MAX_FRAMES", self._num_frames, f"{self.name} has {self._num_frames:,} frames or more")
                check_limit(
                    "S2D_MAX_DECODED_BYTES", self._decoded_bytes,
                    f"{self.name} decodes to {self._decoded_bytes:,} bytes or more",
                )  # fmt: skip
                yield frame
                latest = time.monotonic()  # whoever takes the frame may take as long as it likes
            if time.monotonic() - latest > self._stall:
                if not self._num_frames:
                    raise ValueError(f"{self.name} could not be decoded: no frame for {self._stall} s.")
                self._counts["lost"] += 1
                logger.warning(f"{on_one_line(self.name)}: no frame for {self._stall} s, and the rest is left out.")
                return

    def ends_early(self, end: float, end_in_file: float) -> bool:
        """
        Whether a video ends clearly before its header says.

        Args:
            end (`float`): Where it ends, in seconds from its start.
            end_in_file (`float`): The same in the file's own times. Some containers state the one, some the other.
        """
        if self.duration is None:
            return False
        tolerance = max(0.5, 0.02 * self.duration)
        tolerance = max(tolerance, 3 / self.fps if self.fps else 0.0)  # some count the decoder's delay
        return self.duration - max(end, end_in_file, self._others_end) > tolerance

    def _describe_damage(self) -> str:
        said = []
        if self._counts["lost"]:
            said.append(f"{count_of(self._counts['lost'], 'packet')} could not be decoded and left out")
        if self._counts["corrupt"]:
            said.append(
                f"{count_of(self._counts['corrupt'], 'packet or frame', 'packets or frames')} marked as corrupt"
            )
        count, latest = _count_errors()
        if count > self._errors_before and self._is_alone:
            said.append(
                f"{count_of(count - self._errors_before, 'error')} reported by FFmpeg, the last one {latest!r}"
            )
        if self._is_complete and self.ends_early(self.seen_until, self.seen_until - self.offsets[-1]):
            said.append(f"it ends after {self.seen_until:.1f} s of {self.duration:.1f} s that its header states")
        return ", ".join(said)


class PictureFile(VideoSource):
    """A picture that stands still or moves (PNG, WebP), read by Pillow. [`open_video`] opens it."""

    def __init__(self, source: str | bytes, name: str):
        self.name = name
        self.release = ExitStack()
        with _documented_errors(name, "opened"):
            self._image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        check_limit(
            "S2D_MAX_IMAGE_PIXELS", self._image.width * self._image.height,
            f"{name}: it has {self._image.width}x{self._image.height} pixels",
        )  # fmt: skip
        # of a TIFF, Pillow swaps them itself
        is_turned = self._image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        is_turned = is_turned and self._image.format != "TIFF"
        self.width, self.height = self._image.size[::-1] if is_turned else self._image.size
        num_frames = getattr(self._image, "n_frames", 1)
        check_limit("S2D_MAX_FRAMES", num_frames, f"{name} has {num_frames:,} frames")
        self._is_animated = self._image.format in ("PNG", "WEBP", "AVIF") and num_frames > 1

    def close(self) -> None:
        """Lets go of the file."""
        self._image.close()
        self.release.close()

    def frames(self) -> Iterator[TimedFrame]:
        """Every frame, with ascending times."""
        now = 0.0
        with _documented_errors(self.name, "decoded"):
            for frame in ImageSequence.Iterator(self._image) if self._is_animated else [self._image]:
                frame.load()  # before which WebP doesn't tell
                lasts = frame.info.get("duration", 0) / 1000
                # browsers take a tenth of a second where a picture says less than the screen can show
                lasts = 0.1 if self._is_animated and lasts < 0.011 else lasts
                self.seen_until = now + lasts
                yield TimedFrame(now, ImageOps.exif_transpose(frame), after_cut=False)
                now += lasts

    def to_rgb(self, picture: Image.Image) -> np.ndarray:
        """RGB `(height, width, 3)`, uint8."""
        frame = to_rgb(picture)
        if picture.mode == "F":  # whose scale is anybody's guess
            (frame,) = scale_to_eight_bit([frame])
        return frame.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


@contextmanager
def _documented_errors(name: str, action: str) -> Iterator[None]:
    """Every error of FFmpeg and Pillow as a ValueError that names the file."""
    try:
        yield
    except av.error.ExitError:
        seconds = limit_of("S2D_STALL_SECONDS")
        raise ValueError(f"{name} could not be {action}: nothing came of it for {seconds} s.") from None
    except (av.FFmpegError, OSError, MemoryError, SyntaxError, UnicodeError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{name} could not be {action}: it is truncated, damaged or no video. ({reason})") from error


def _decoder_options() -> dict[str, str]:
    return {"max_pixels": str(min(limit_of("S2D_MAX_FRAME_PIXELS"), 2**31 - 1))}


def _moves(stream: av.VideoStream) -> bool:
    """Whether a stream is a video, and not the picture on a song's cover."""
    return not stream.disposition & Disposition.attached_pic


def _count_errors() -> tuple[int, str]:
    """How many errors FFmpeg has reported in this process, and the latest one."""
    count, latest = av.logging.get_last_error()
    return count, "" if latest is None else f"{latest[1]}: {latest[2].strip()}"


__all__ = [
    "LONGEST_FRAME",
    "PictureFile",
    "SoundPacket",
    "TimedFrame",
    "VideoFile",
    "VideoSource",
    "open_video",
    "tell_damage",
]
