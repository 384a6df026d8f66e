"""Colours: matrices, ranges, depths, grey, RGB, transparency and fields."""

import av
import numpy as np
import pytest
from PIL import Image

from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_reading_s2d import read_video

from ..made_videos import HEIGHT, WIDTH, as_array, make_video, plain_decode, yuv_to_rgb
from .coloured_stripes import (
    BT601,
    BT709,
    BT2020,
    COLOURS,
    LEVELS,
    LOSSLESS,
    PATCHES,
    check_stripes,
    patches_frame,
    stripes_with_alpha,
    write_tagged_patches,
)
from .readers import make_or_skip

# FFmpeg's numbers: BT.709 is 1, BT.601 5 and 6, BT.2020 9; limited range is 1, full range 2
TAGGED = {
    "601-limited": (5, 1, BT601),
    "601-525-full": (6, 2, BT601),
    "709-limited": (1, 1, BT709),
    "709-full": (1, 2, BT709),
    "2020-limited": (9, 1, BT2020),
}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("name", TAGGED)
def test_matrices_and_ranges(tmp_path, plain, name, suffix):
    matrix, colour_range, coefficients = TAGGED[name]
    path = write_tagged_patches(tmp_path / f"a{suffix}", matrix, colour_range, "yuv420p", 25)
    (first, *_) = plain_decode(path)
    assert int(first.colorspace) == matrix and int(first.color_range) == colour_range
    check_stripes(path, yuv_to_rgb(PATCHES, *coefficients, is_full=colour_range == 2), plain)


@pytest.mark.parametrize(
    ("height", "width", "coefficients"),
    [(96, 160, BT601), (480, 640, BT601), (576, 720, BT601), (578, 320, BT709), (160, 1280, BT709), (160, 1278, BT601),
     (720, 1280, BT709)],
)  # fmt: skip
def test_untagged_colours(tmp_path, plain, height, width, coefficients):
    frames = [patches_frame(height, width, "yuv420p") for _ in range(2)]
    path = make_video(tmp_path / "a.mp4", frames, options=LOSSLESS)
    (first, *_) = plain_decode(path)
    assert int(first.colorspace) == 2 and int(first.color_range) == 0
    check_stripes(path, yuv_to_rgb(PATCHES, *coefficients, is_full=False), plain)


@pytest.mark.parametrize(
    "pix_fmt",
    [
        "yuv420p10le",
        "yuv422p",
        "yuv444p",
        "yuv422p10le",
        "yuv444p10le",
        "yuv420p12le",
        "yuv411p",
        "yuv440p",
        "yuv410p",
    ],
)
def test_depths_and_subsampling(tmp_path, plain, pix_fmt):
    frames = [patches_frame(HEIGHT, WIDTH, pix_fmt) for _ in range(2)]
    path = make_video(tmp_path / "a.mkv", frames, "ffv1", pix_fmt=pix_fmt)
    assert plain_decode(path)[0].format.name == pix_fmt
    check_stripes(path, yuv_to_rgb(PATCHES, *BT601, is_full=False), plain)


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_jpeg_colours(tmp_path, plain, pix_fmt):
    frames = [patches_frame(HEIGHT, WIDTH, pix_fmt) for _ in range(2)]
    path = make_video(tmp_path / "a.avi", frames, "mjpeg", pix_fmt=pix_fmt, options={"q": "1", "qmin": "1"})
    check_stripes(path, yuv_to_rgb(PATCHES, *BT601, is_full=True), plain, tolerance=4)


@pytest.mark.parametrize(("pix_fmt", "codec"), [("gray", "ffv1"), ("gray10le", "ffv1"), ("gray", "png")])
def test_grey(tmp_path, plain, pix_fmt, codec):
    """Grey is written in its full range by all that write it."""
    values = np.array([0, 36, 72, 108, 144, 180, 216, 255])
    patches = np.stack([values] * 3, axis=-1)
    frames = [patches_frame(HEIGHT, WIDTH, pix_fmt, patches) for _ in range(2)]
    path = make_video(tmp_path / f"a{'.mov' if codec == 'png' else '.mkv'}", frames, codec, pix_fmt=pix_fmt)
    assert plain_decode(path)[0].format.name.startswith("gray")
    check_stripes(path, patches, plain)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("png", "rgb24", ".mov"), ("ffv1", "bgr0", ".mkv"), ("ffv1", "gbrp10le", ".mkv"), ("qtrle", "rgb24", ".mov"),
     ("libx264rgb", "rgb24", ".mkv"), ("apng", "rgb24", ".apng"), ("rawvideo", "bgr24", ".avi"),
     ("png", "rgb48be", ".mov")],
)  # fmt: skip
def test_rgb(tmp_path, plain, codec, pix_fmt, suffix):
    picture = np.repeat(np.repeat(COLOURS, WIDTH // 8, axis=0)[None], HEIGHT, axis=0).astype(np.uint8)
    options = {"qp": "0"} if codec == "libx264rgb" else {}
    path = make_or_skip(tmp_path / f"a{suffix}", [picture] * 2, codec, pix_fmt=pix_fmt, options=options)
    check_stripes(path, COLOURS, plain)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("png", "rgba", ".mov"), ("qtrle", "argb", ".mov"), ("ffv1", "bgra", ".mkv"), ("apng", "rgba", ".apng"),
     ("ffv1", "yuva444p", ".mkv"), ("prores_ks", "yuva444p10le", ".mov"), ("ffv1", "yuva420p", ".mkv")],
)  # fmt: skip
def test_alpha_lies_over_white(tmp_path, plain, codec, pix_fmt, suffix):
    rgba, over_white = stripes_with_alpha(LEVELS)
    frames = [av.VideoFrame.from_ndarray(rgba, format="rgba") for _ in range(2)]
    path = make_or_skip(tmp_path / f"a{suffix}", frames, codec, pix_fmt=pix_fmt)
    check_stripes(path, over_white, plain, tolerance=10 if codec == "prores_ks" else 4)


def test_grey_with_alpha_lies_over_white(tmp_path, plain):
    """Stripes of growing opacity, black."""
    levels = np.array([0, 36, 72, 108, 144, 180, 216, 255])
    pixels = np.repeat(np.stack([0 * levels, levels], axis=-1), WIDTH // 8, axis=0)[None].repeat(HEIGHT, axis=0)
    frame = av.VideoFrame(WIDTH, HEIGHT, "ya8")
    (plane,) = frame.planes
    padded = np.zeros((HEIGHT, plane.line_size), np.uint8)
    padded[:, : 2 * WIDTH] = pixels.reshape(HEIGHT, -1)
    plane.update(padded.tobytes())
    path = make_video(tmp_path / "a.mov", [frame], "png", pix_fmt="ya8")
    check_stripes(path, np.stack([255 - levels] * 3, axis=-1), plain)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_alpha_of_animated_pictures(tmp_path, plain, suffix):
    levels = np.where(LEVELS < 200, 0, 255) if suffix == ".gif" else LEVELS  # a GIF's pixels are clear or not
    rgba, over_white = stripes_with_alpha(levels)
    pictures = [Image.fromarray(rgba), Image.fromarray(rgba).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    options = {"lossless": True} if suffix == ".webp" else {"disposal": 2} if suffix == ".gif" else {}
    path = tmp_path / f"a{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, **options)
    check_stripes(path, over_white, plain, tolerance=6)


def two_fields(pix_fmt: str, shift: int) -> tuple[av.VideoFrame, np.ndarray]:
    """A frame whose second field was taken when a bright bar was further to the right, and the first field's luma."""
    frame = av.VideoFrame(WIDTH, HEIGHT, pix_fmt)
    first = None
    for i, (plane, component) in enumerate(zip(frame.planes, frame.format.components, strict=True)):
        kind = np.uint8 if component.bits == 8 else np.uint16
        scale = 2 ** (component.bits - 8)
        filled = np.full((plane.height, plane.line_size // kind().itemsize), (50 if i == 0 else 110) * scale, kind)
        unit = plane.width / WIDTH
        for field, left in ((0, 40), (1, 40 + shift)):
            filled[field::2, round(left * unit) : round((left + 16) * unit)] = (200 if i == 0 else 150) * scale
        plane.update(filled.tobytes())
        first = filled[0, :WIDTH] / scale if i == 0 else first
    return frame, first


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv420p10le"])
def test_interlaced(tmp_path, plain, pix_fmt):
    frames, rows = zip(*(two_fields(pix_fmt, 32) for _ in range(4)), strict=True)
    options = LOSSLESS | {"x264-params": "tff=1"}
    path = make_video(tmp_path / "a.mp4", frames, pix_fmt=pix_fmt, options=options)
    assert all(frame.interlaced_frame for frame in plain_decode(path))
    is_bar = rows[0] > 100
    yuv = np.where(is_bar[:, None], [200, 150, 150], [50, 110, 110])
    right = yuv_to_rgb(yuv, *BT601, is_full=False)
    inner = np.ones(WIDTH, bool)
    inner[[x for edge in (40, 56) for x in range(edge - 3, edge + 3)]] = False  # where chroma is interpolated
    with open_stream(path) as stream:
        sampled = next(iter(sample_evenly(stream, 1))).pixels
    for picture in (read_video(path)[0][1], plain(path, return_tensors="pt")["pixel_values"][0, 0], sampled):
        picture = as_array(picture).astype(float)
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(np.diff(picture, axis=0)).max() <= 2  # nothing is combed
        assert np.abs(picture - right)[:, inner].max() <= 6


def test_interlaced_mpeg2(tmp_path):
    frames = [two_fields("yuv420p", 32)[0] for _ in range(4)]
    path = make_video(
        tmp_path / "a.mpg", frames, "mpeg2video", options={"flags": "+ildct+ilme", "alternate_scan": "1"}
    )
    if not plain_decode(path)[0].interlaced_frame:
        pytest.skip("PyAV can't mark frames as interlaced for this encoder")
    for frame in read_video(path)[0]:
        assert np.abs(np.diff(as_array(frame).astype(int), axis=0))[4:-4].max() < 60


@pytest.mark.parametrize(("matrix", "colour_range", "coefficients"), [(9, 1, BT2020), (1, 2, BT709), (5, 1, BT601)])
def test_matrices_of_ten_bits(tmp_path, plain, matrix, colour_range, coefficients):
    path = write_tagged_patches(tmp_path / "a.mp4", matrix, colour_range, "yuv420p10le", 5)
    (first, *_) = plain_decode(path)
    assert first.format.name == "yuv420p10le"
    assert (int(first.colorspace), int(first.color_range)) == (matrix, colour_range)
    check_stripes(path, yuv_to_rgb(PATCHES, *coefficients, is_full=colour_range == 2), plain)
