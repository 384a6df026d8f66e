"""Any picture and any clip, in any form: the right `pixel_values`, or a refusal that names what is wrong."""

from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from s2d_hf import S2DImageProcessor, S2DVideoProcessor
from s2d_hf.frames_s2d import sample_frame_indices
from s2d_hf.video_reading_s2d import TimedVideoMetadata, spread_evenly, window_at_rate

from .refusals import result_or_none

SIZES = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_landmarks": False}
IMAGES, VIDEOS = S2DImageProcessor(**SIZES), S2DVideoProcessor(**SIZES)
ALL_FRAMES = S2DVideoProcessor(**SIZES, num_frames=None)
LEVEL = 1.01 / 255 / min(IMAGES.image_std)  # one of 256 grey levels, to which resized uint8 pixels are rounded
MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "I;16",
    "F",
)
DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32"),
    *("float64", "longdouble", ">u2", ">f4", "complex64", "S1", "O", "M8[s]"),
)
UNTRIED = {"device", "return_tensors", "do_crop_faces"}  # torch's, transformers', and what needs a download
OPTIONS = sorted({"unknown", *S2DVideoProcessor.valid_kwargs.__annotations__} - UNTRIED)
ODD = st.none() | st.booleans() | st.integers(-2, 99) | st.floats() | st.sampled_from(["", "3", (), [], {}, 10**30])


@st.composite
def arrays(draw) -> Any:
    """Numbers of any kind, size and layout, as an array or a tensor."""
    edges, count = [0, 1, 2, 3, 4, 5, 32, 70], draw(st.integers(0, 5))
    shape = [draw(st.sampled_from(edges if i >= count - 3 else edges[:4])) for i in range(count)]
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    value = draw(st.sampled_from([0, 1, 0.5, 200, 255, 256, 65535, 65536, -1, 2**40, 1e30, np.nan, np.inf]))
    with np.errstate(all="ignore"):
        array = np.full(shape, value).astype(dtype)
    if draw(st.booleans()) and dtype.kind in "buifc" and dtype.isnative and dtype != np.longdouble:
        return torch.from_numpy(array)
    return array[::-1] if count and draw(st.booleans()) else array


PICTURES = st.builds(Image.new, st.sampled_from(MODES), st.tuples(st.integers(1, 70), st.integers(1, 300)))
NO_PICTURES = st.sampled_from([None, 3, 2.5, "", "nothing.png", b"", object(), {}, {"bytes": None}, set(), Image])
ANYTHING = st.recursive(
    arrays() | PICTURES | NO_PICTURES, lambda inner: st.lists(inner, max_size=9) | st.tuples(inner), max_leaves=9
)


def is_right(output: Any, *shape: int) -> bool:
    found = output["pixel_values"]
    return found.shape[-len(shape) :] == shape and bool(torch.isfinite(found).all()) and len(found) > 0


@given(inputs=ANYTHING)
@example(inputs=np.zeros((0, 4, 4, 3), np.uint8))
@example(inputs=np.zeros((0, 2, 4, 4, 3), np.uint8))
@example(inputs=np.zeros((1, 5, 3), np.uint8)[::-1])
def test_any_input_is_made_ready_or_refused(inputs):
    output = result_or_none("image", IMAGES, inputs, return_tensors="pt")
    assert output is None or is_right(output, 3, 32, 32)
    output = result_or_none("video|There is no", VIDEOS, inputs, num_frames=4, return_tensors="pt")
    assert output is None or is_right(output, 4, 3, 32, 32)


@given(form=st.sampled_from(["PIL", "RGBA", "first", "torch", "uint16", "strided", "int16", "uint64", "float32"]),
       size=st.sampled_from([(1, 1), (1, 300), (70, 2), (5, 7), (4, 3), (32, 32), (40, 33), (70, 300)]),
       wrap=st.sampled_from([lambda x: x, lambda x: [x], lambda x: ([x],)]), seed=st.integers(0, 99))  # fmt: skip
def test_a_picture_in_another_form_gives_the_same(form, size, wrap, seed):
    picture = np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    changes = {
        "PIL": Image.fromarray,
        "RGBA": lambda x: np.concatenate([x, np.full_like(x[..., :1], 255)], axis=-1),
        "first": lambda x: np.moveaxis(x, -1, 0),
        "torch": torch.tensor,
        "uint16": lambda x: x.astype(np.uint16) * 257,
        "strided": lambda x: np.repeat(x[::-1], 2, axis=1)[::-1, ::2],
    }
    same = changes[form](picture) if form in changes else picture.astype(form)
    options = {"input_data_format": "channels_first" if form == "first" else "channels_last", "return_tensors": "pt"}
    expected = IMAGES(picture, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
    for output in (IMAGES(wrap(same), **options), VIDEOS([same], num_frames=1, **options)):
        found = output["pixel_values"].flatten(0, -4)
        torch.testing.assert_close(found, expected, rtol=0, atol=LEVEL if form == "float32" else 0)


def plain_choice(total: int, count: int | None, stride: int | None, rate: float | None, fps: float) -> list[int]:
    """The frames that the docstrings promise, one after the other."""
    if count is None and rate is not None:
        count = max(1, int(total / fps * rate + 1e-6))
    elif count is None:
        count = -(-total // (stride or 1))
    if rate is not None:
        times = [i / fps for i in range(total)]
        free = max(0.0, times[-1] - (count - 1) / rate)
        start = max(time for time in times if time <= free / 2 + 1e-6)
        wanted = [start + i / rate for i in range(count)]
        return [min(range(total), key=lambda i: (round(abs(times[i] - time), 5), i)) for time in wanted]
    if stride is not None:
        start = max(0, (total - (count - 1) * stride - 1) // 2)
        return [min(start + i * stride, total - 1) for i in range(count)]
    if total <= count:
        return [min(i, total - 1) for i in range(count)]
    return [round(i * (total - 1) / max(1, count - 1)) for i in range(count)]


def frames_of(total: int) -> np.ndarray:
    """Frames that tell their number."""
    return np.arange(total, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 9, 3), np.uint8)


@given(total=st.integers(1, 9), count=st.none() | st.integers(1, 12), fps=st.sampled_from([1, 7.5, 24, 25, 30, 1000]),
       stride=st.none() | st.integers(1, 5) | st.just(100_000),
       rate=st.none() | st.sampled_from([0.001, 0.5, 1, 7, 8.0, 24, 25, 30]))  # fmt: skip
def test_the_frames_are_those_of_the_docstring(total, count, stride, rate, fps):
    options = {"num_frames": count, "frame_stride": stride, "fps": rate, "return_tensors": "pt"}
    processor, metadata = VIDEOS if count else ALL_FRAMES, {"total_num_frames": total, "fps": fps}
    output = result_or_none("`fps` or", processor, frames_of(total), video_metadata=metadata, **options)
    assert (output is None) == (stride is not None and rate is not None)
    if output is not None:
        mean, std = (torch.tensor(values)[:, None, None] for values in (VIDEOS.image_mean, VIDEOS.image_std))
        frames = (output["pixel_values"][0] * std + mean) * 255
        assert (frames - frames.round()).abs().max() < 1e-3
        expected = torch.tensor(plain_choice(total, count, stride, rate, fps))
        assert (frames.round() == expected[:, None, None, None]).all()


@given(options=st.dictionaries(st.sampled_from(OPTIONS), ODD, max_size=2), is_video=st.booleans())
@example(options={"image_std": [0.0, 1.0, 1.0]}, is_video=False)
@example(options={"image_mean": []}, is_video=False)
@example(options={"rescale_factor": 0.0}, is_video=False)
@example(options={"num_frames": 10**12}, is_video=True)
@example(options={"frame_stride": 10**30}, is_video=True)
@example(options={"video_metadata": []}, is_video=True)
def test_any_option_is_used_or_refused(options, is_video):
    assume(not any(options.get(name) in ([], ()) for name in ("size", "crop_size")))  # transformers takes their first
    processor, inputs = (VIDEOS, frames_of(9)) if is_video else (IMAGES, frames_of(9)[3])
    try:
        named = "|".join(["(?i)image|video|landmark|interpolation", *options])
        output = result_or_none(named, processor, inputs, **options)
    except StrictDataclassError as error:  # of another type than transformers says
        assert any(name in str(error) for name in options), error
    else:
        assert output is None or all(torch.isfinite(values).all() for values in output["pixel_values"])


@given(times=st.none() | st.lists(st.sampled_from([0.0, 1e-9, 0.04, 0.5, 7.0, 1e6]), max_size=40).map(np.cumsum),
       total=st.integers(-1, 60), count=st.integers(-1, 50) | ODD, place=st.tuples(ODD, ODD),
       rates=st.tuples(st.floats() | st.integers(-1, 99), st.none() | st.floats() | st.integers(-1, 60)))  # fmt: skip
@example(times=None, total=2, count=2.5, place=(None, None), rates=(8, None))
@example(times=None, total=2, count=4, place=(10**30, None), rates=(8, 8))
def test_any_choice_of_frames_is_in_order(times, total, count, place, rates):
    assume(count != 10**30)
    total = total if times is None else len(times)
    metadata = TimedVideoMetadata(total_num_frames=total, fps=rates[1], frame_times=times)
    calls = [(spread_evenly, metadata), (window_at_rate, metadata, rates[0]), (sample_frame_indices, total, *place)]
    for call, source, *more in calls:
        indices = result_or_none("`(num_frames|stride|start|fps)`|has no frames", call, source, count, *more)
        if indices is not None:
            assert indices.shape == (count,) and np.issubdtype(indices.dtype, np.integer)
            assert indices[0] >= 0 and indices[-1] < total and (np.diff(indices) >= 0).all()
