"""Containers and codecs."""

import av
import numpy as np
import pytest
from PIL import Image

from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_reading_s2d import read_video

from ..made_videos import HEIGHT, WIDTH, make_video, number_of, numbered
from .readers import MARK, check_readers, dataset_of, make_or_skip

# suffix, codec, and what else `make_video` is given
KINDS = {
    "mp4-h264": (".mp4", "libx264", {"gop": 12, "b_frames": 2}),
    "mp4-fragmented": (".mp4", "libx264", {"gop": 12, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mp4-hevc": (".mp4", "libx265", {"gop": 12}),
    "mov-mjpeg": (".mov", "mjpeg", {"pix_fmt": "yuvj420p"}),
    "mov-prores": (".mov", "prores_ks", {"pix_fmt": "yuv422p10le"}),
    "mkv-vp8": (".mkv", "libvpx", {"gop": 12}),
    "mkv-h264": (".mkv", "libx264", {"gop": 12, "b_frames": 2}),
    "webm-vp9": (".webm", "libvpx-vp9", {"gop": 12}),
    "webm-live": (".webm", "libvpx-vp9", {"gop": 12, "container_options": {"live": "1"}}),
    "webm-av1": (".webm", "libsvtav1", {"gop": 12}),
    "avi-mpeg4": (".avi", "mpeg4", {"gop": 12}),
    "avi-xvid": (".avi", "mpeg4", {"gop": 12, "b_frames": 2, "prepare": lambda context: tag(context, "XVID")}),
    "avi-xvid-10": (".avi", "mpeg4", {"gop": 12, "b_frames": 2, "rate": 10}),
    "avi-h264": (".avi", "libx264", {"gop": 12, "b_frames": 2}),
    "avi-mjpeg": (".avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
    "ts-h264": (".ts", "libx264", {"gop": 12, "b_frames": 2}),
    "ts-hevc": (".ts", "libx265", {"gop": 12}),
    "m2ts-h264": (".m2ts", "libx264", {"gop": 12, "b_frames": 2}),
    "ts-mpeg2": (".ts", "mpeg2video", {"gop": 12, "b_frames": 2}),
    "mpg-mpeg2": (".mpg", "mpeg2video", {"gop": 12, "b_frames": 2}),
    "mpg-mpeg1": (".mpg", "mpeg1video", {"gop": 12, "b_frames": 2}),
    "flv-flv1": (".flv", "flv", {"gop": 12}),
    "flv-h264": (".flv", "libx264", {"gop": 12, "b_frames": 2}),
    "wmv-wmv2": (".wmv", "wmv2", {"gop": 12}),
    "ogv-theora": (".ogv", "libtheora", {"gop": 12}),
    "ogv-vp8": (".ogv", "libvpx", {"gop": 12}),
    "gif": (".gif", "gif", {"pix_fmt": "rgb8"}),
    "apng": (".apng", "apng", {"pix_fmt": "rgb24"}),
    "raw-h264": (".h264", "libx264", {"gop": 12, "b_frames": 2}),
    "raw-hevc": (".hevc", "libx265", {"gop": 12}),
    "raw-mjpeg": (".mjpeg", "mjpeg", {"pix_fmt": "yuvj420p"}),
    "raw-mpeg2": (".m2v", "mpeg2video", {"gop": 12, "b_frames": 2, "container_format": "mpeg2video"}),
    "obu-av1": (".obu", "libsvtav1", {"gop": 12}),
    "ivf-vp8": (".ivf", "libvpx", {"gop": 12}),
    "nut-ffv1": (".nut", "ffv1", {}),
    "mkv-ffv1": (".mkv", "ffv1", {}),
    "mxf-mpeg2": (".mxf", "mpeg2video", {"gop": 12}),
    "y4m": (".y4m", "rawvideo", {"container_format": "yuv4mpegpipe"}),
}


def tag(context, name: str) -> None:
    context.codec_tag = name


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(tmp_path, plain, kind):
    suffix, codec, options = KINDS[kind]
    path = make_or_skip(tmp_path / f"video{suffix}", map(numbered, range(90)), codec, **options)
    times = np.arange(90) / options.get("rate", 25)
    check_readers(path, list(range(90)), times.tolist(), plain)
    if kind == "webm-live":
        with av.open(str(path)) as container:
            assert container.duration is None and container.streams.video[0].duration is None


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_animated_pictures(tmp_path, plain, suffix):
    path = tmp_path / f"moving{suffix}"
    pictures = [Image.fromarray(numbered(i)) for i in range(40)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, loop=0)
    check_readers(path, list(range(40)), (np.arange(40) / 25).tolist(), plain)


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
def test_short_videos(tmp_path, plain, suffix, count):
    codec = {".mp4": "libx264", ".webm": "libvpx-vp9", ".avi": "mpeg4"}[suffix]
    path = make_video(tmp_path / f"a{suffix}", map(numbered, range(count)), codec)
    check_readers(path, list(range(count)), (np.arange(count) / 25).tolist(), plain)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_stills(tmp_path, plain, suffix):
    """A picture is a video of one frame; its EXIF orientation is minded."""
    picture = Image.fromarray(numbered(5))
    exif = Image.Exif()
    if suffix == ".jpg":
        exif[0x0112] = 6  # to be turned clockwise
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    picture.save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    frames, metadata = read_video(tmp_path / f"a{suffix}")
    assert [number_of(frame) for frame in frames] == [5] and metadata.total_num_frames == 1
    clip = plain(tmp_path / f"a{suffix}", return_tensors="pt")["pixel_values"]
    assert clip.shape == (1, 16, 3, HEIGHT, WIDTH) and {number_of(frame) for frame in clip[0]} == {5}
    with open_stream(tmp_path / f"a{suffix}") as stream:
        assert [number_of(sample.pixels) for sample in sample_evenly(stream, MARK)] == [5]


def test_several_streams(small, tmp_path, plain):
    """The picture on a song's cover is no video, and the best of several streams is taken."""
    path = tmp_path / "cover.mp4"
    with av.open(str(small)) as source, av.open(str(path), "w") as target:
        cover = target.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        copied = target.add_stream_from_template(source.streams.video[0])
        still = av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), format="rgb24")
        still.pts = 0
        target.mux(cover.encode(still) + cover.encode())
        for packet in source.demux():
            if packet.size:
                packet.stream = copied
                target.mux(packet)
    check_readers(path, list(range(40)), (np.arange(40) / 25).tolist(), plain)


def test_sound_alone(tmp_path, plain):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        stream.layout = "mono"
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for read in (read_video, open_stream, lambda path: plain(str(path)), lambda path: dataset_of(path)[0]):
        with pytest.raises(ValueError, match=r"sound\.mp4 has no video"):
            read(path)
