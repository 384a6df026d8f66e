"""The sound of annotated videos is that of their sources, at the same times."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from s2d_hf.timeline.annotation import annotate_video

from .made_timelines import made_timeline
from .videos_with_sound import RATE, SWITCH, read_sound, read_times, scene, tone_delay, write_video_with_sound


@pytest.mark.parametrize(
    ("suffix", "sound"),
    [(".mp4", "aac"), (".mkv", "aac"), (".mkv", "libopus"), (".mkv", "libmp3lame"), (".mkv", "flac")],
)
def test_sound_is_copied(suffix, sound, tmp_path):
    frames = [scene(120, 160) // 3 if i < 25 else np.full((120, 160, 3), 200, np.uint8) for i in range(50)]
    source = write_video_with_sound(tmp_path / f"in{suffix}", frames, sound=sound)
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    before, after = read_sound(source), read_sound(target)
    assert len(before) > 15 and [content for _, content in after] == [content for _, content in before]
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=0.0006)
    assert tone_delay(target) == pytest.approx(tone_delay(source), abs=0.001)
    assert abs(tone_delay(target)) < 0.02


@pytest.mark.parametrize(
    ("suffix", "sound", "video"),
    [(".mov", "pcm_s16le", "libx264"), (".avi", "pcm_s16le", "mpeg4"), (".mkv", "mp2", "libx264")],
)
def test_sound_that_does_not_belong_into_mp4_is_encoded_anew(suffix, sound, video, tmp_path):
    frames = [scene(120, 160) // 3 if i < 25 else np.full((120, 160, 3), 200, np.uint8) for i in range(50)]
    source = write_video_with_sound(tmp_path / f"in{suffix}", frames, sound=sound, video=video)
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    with av.open(str(target)) as container:
        (stream,) = container.streams.audio
        assert (stream.codec_context.name, stream.rate, stream.layout.name) == ("aac", RATE, "stereo")
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
    assert abs(tone_delay(target) - tone_delay(source)) < 0.003
    # each ear has its own tone
    late = heard[:, int(1.3 * RATE) : int(1.3 * RATE) + RATE // 2]
    peaks = np.abs(np.fft.rfft(late)).argmax(axis=1) * 2
    assert np.abs(peaks - [440, 523]).max() <= 3


def test_every_stream_of_sound_is_kept(tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        sounds = [container.add_stream(codec, rate=RATE, layout="mono") for codec in ("aac", "pcm_s16le", "aac")]
        for _ in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(scene(120, 160), format="rgb24")))
        for number, sound in enumerate(sounds):
            tone = 9000 * np.sin(2 * np.pi * 200 * (number + 1) * np.arange(RATE) / RATE)
            frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
            frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(sound.encode(frame))
        for stream in (video, *sounds):
            container.mux(stream.encode())
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    heard = []
    for number in range(3):
        with av.open(str(target)) as container:
            assert len(container.streams.audio) == 3
            samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=number)])
        heard.append(np.abs(np.fft.rfft(samples[8000:30050])).argmax() * 2)
    assert heard == pytest.approx([200, 400, 600], abs=3)


def test_a_video_without_sound(tmp_path):
    source = write_video_with_sound(tmp_path / "in.mp4", [scene(120, 160)] * 10, sound=None)
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    with av.open(str(target)) as container:
        assert len(container.streams) == 1 and len(list(container.decode(video=0))) == 10


def test_a_video_that_does_not_begin_at_zero(tmp_path):
    frames = [scene(120, 160) // 3 if i < 25 else np.full((120, 160, 3), 200, np.uint8) for i in range(50)]
    source = write_video_with_sound(tmp_path / "in.mkv", frames, start=Fraction(7, 2))
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    assert read_times(source)[0] == 3.5
    assert read_times(target) == pytest.approx([i / 25 for i in range(50)])
    assert tone_delay(target) == pytest.approx(tone_delay(source), abs=0.001)
    assert [content for _, content in read_sound(target)] == [content for _, content in read_sound(source)]


def heard_samples(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_sound_before_the_first_picture_is_kept(suffix, tmp_path):
    dark, bright = np.zeros((64, 96, 3), np.uint8), np.full((64, 96, 3), 255, np.uint8)
    times = [Fraction(7, 10) + Fraction(i, 25) for i in range(30)]
    frames = [bright if time >= SWITCH else dark for time in times]
    path = write_video_with_sound(tmp_path / f"lead{suffix}", frames, times)
    target = annotate_video(made_timeline(size=(96, 64)), tmp_path / "out.mp4", path, progress=False)
    assert heard_samples(target) == heard_samples(path)
    assert read_times(target)[0] == pytest.approx(0.7, abs=0.03)  # a codec's padding comes before the sound
    assert tone_delay(target) == pytest.approx(tone_delay(path), abs=0.005)


def test_recordings_behind_each_other_keep_their_sound_in_time(tmp_path):
    """Three recordings in a transport stream, each of which starts its times again."""
    dark, bright = np.zeros((64, 96, 3), np.uint8), np.full((64, 96, 3), 255, np.uint8)
    parts = [
        write_video_with_sound(tmp_path / f"{i}.ts", [bright if j >= 25 else dark for j in range(length)])
        for i, length in enumerate((50, 40, 45))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    target = annotate_video(made_timeline(size=(96, 64)), tmp_path / "out.mp4", path, progress=False)
    times = read_times(target)
    np.testing.assert_allclose(times, np.arange(135) / 25, atol=0.002)
    assert heard_samples(target) >= heard_samples(path) - 3 * 1024  # up to the packet that is cut at each end
    with av.open(str(target)) as container:
        brightness = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    with av.open(str(target)) as container:
        sound = [(frame.time, np.abs(frame.to_ndarray()).mean()) for frame in container.decode(audio=0)]
    bright_since = [times[i] for i in range(1, 135) if brightness[i] > 128 > brightness[i - 1]]
    loud_since = [now for (_, before), (now, level) in itertools.pairwise(sound) if level > 0.02 > before]
    assert len(bright_since) == 3
    for begins in bright_since:
        assert min(abs(begins - heard) for heard in loud_since) < 0.06
