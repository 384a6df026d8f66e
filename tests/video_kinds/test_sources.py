"""Names of files, bytes, data sets, folders of frames, and what must not be opened."""

import ctypes
import itertools
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from s2d_hf.data.dataset import ClipDataset
from s2d_hf.data.sources import from_hub
from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_reading_s2d import read_video

from ..made_videos import make_video, number_of, numbered
from .readers import MARK, check_even, check_readers, dataset_of, scores_of, whole_clip


@pytest.mark.parametrize(
    "name",
    [b"a%03d.mp4", b"%d.mp4", b"a:b.mp4", b"pipe:0.mp4", b"http:a.mp4", b"concat:a.mp4|b.mp4", b"two\nlines.mp4",
     b"\xff\xfe\xe4.mp4", b"file:x.mp4", b"a,b;c?d#e&f.mp4", b"-i.mp4", b" blank .mp4", b"no_suffix", b"video.txt",
     b"a*[0-9].mp4", b"crypto:a.mp4", b"\\back.mp4"],
)  # fmt: skip
def test_names(small, tmp_path, plain, name, monkeypatch):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(small.read_bytes())
    check_readers(path, list(range(40)), (np.arange(40) / 25).tolist(), plain)
    monkeypatch.chdir(tmp_path)  # the name alone, which looks like a protocol here and there
    frames, _ = read_video(path.name, lambda metadata: [7, 30])
    assert [number_of(frame) for frame in frames] == [7, 30]
    assert number_of(plain(path.name, num_frames=1, return_tensors="pt")["pixel_values"][0, 0]) == 0


def test_names_in_warnings(tmp_path, caplog):
    """No name of a file moves a terminal or begins a line of its own."""
    data = make_video(tmp_path / "a.mkv", map(numbered, range(75)), gop=25).read_bytes()
    path = tmp_path / "x\x1b[31mred\nline.mkv"
    path.write_bytes(data[: 7 * len(data) // 10])
    read_video(path)
    with open_stream(path) as stream:
        list(sample_evenly(stream, MARK))
    told = [record.getMessage() for record in caplog.records if record.name.startswith("s2d_hf")]
    assert len(told) == 2 and all("is damaged" in message and message.isprintable() for message in told)


def test_names_in_a_pipeline(small, converted, tmp_path):
    classifier = pipeline("video-classification", model=str(converted))
    right = scores_of(classifier(str(small), top_k=7))
    for name in (b"a%03d.mp4", b"a:b.mp4", b"two\nlines.mp4", b"\xff\xfe.mp4"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(small.read_bytes())
        assert scores_of(classifier(str(path), top_k=7)) == pytest.approx(right, abs=1e-6)


@contextmanager
def watched(*files: Path) -> Iterator[list[str]]:
    """Which of these files were opened meanwhile, by anything in this process or another; known when it ends."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs inotify")
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    names = {libc.inotify_add_watch(descriptor, os.fsencode(file), 0x20): file.name for file in files}
    opened: list[str] = []
    try:
        yield opened
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            data = b""
        while data:
            watch, _, _, length = struct.unpack_from("iIII", data)
            opened.append(names[watch])
            data = data[16 + length :]
    finally:
        os.close(descriptor)


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n{segment}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n{segment}\n#EXT-X-ENDLIST\n",
    "script.ffconcat": "ffconcat version 1.0\nfile {segment}\nfile {segment}\n",
    "script.mp4": "ffconcat version 1.0\nfile {segment}\nfile {segment}\n",
    "camera.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 59871 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "manifest.mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1.6S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
    'contentType="video" mimeType="video/mp4"><Representation id="0" mimeType="video/mp4" bandwidth="100000" '
    'width="160" height="96"><BaseURL>{segment}</BaseURL></Representation></AdaptationSet></Period></MPD>\n',
    "frames.smil": '<smil><body><video src="{segment}"/></body></smil>\n',
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("is_absolute", [False, True])
def test_playlists_are_refused(tmp_path, plain, name, is_absolute):
    """They would open whatever files and addresses they name."""
    segment = make_video(tmp_path / "segment.ts", map(numbered, range(40)))
    make_video(tmp_path / "segment.mp4", map(numbered, range(40)))
    place = segment if is_absolute else segment.name
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format(segment=place))
    with watched(segment, tmp_path / "segment.mp4") as opened:
        for read in (
            lambda: read_video(path),
            lambda: plain(str(path), return_tensors="pt"),
            lambda: open_stream(path),
            lambda: dataset_of(path)[0],
        ):
            with pytest.raises(ValueError, match=path.name):
                read()
        with pytest.raises(ValueError):
            read_video(path.read_bytes())
    assert opened == []
    with watched(segment) as opened:  # and the watch sees what is opened
        read_video(segment)
    assert segment.name in opened


def test_movies_that_refer_to_other_files(small, tmp_path):
    """A QuickTime movie may name another file for its data."""
    data = bytearray(small.read_bytes())
    at = data.index(b"url \0\0\0\1")
    data[at + 7] = 0  # the data is elsewhere
    (tmp_path / "a.mp4").write_bytes(data)
    other = tmp_path / "other.mp4"
    other.write_bytes(small.read_bytes())
    with watched(other) as opened:
        try:
            read_video(tmp_path / "a.mp4")
        except ValueError as error:
            assert "a.mp4" in str(error)
    assert opened == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".webp"])
def test_bytes_instead_of_a_path(tmp_path, plain, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".webp":
        pictures = [Image.fromarray(numbered(i)) for i in range(40)]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    else:
        make_video(path, map(numbered, range(40)), "mpeg4" if suffix == ".avi" else "libx264", gop=12, b_frames=2)
    data = path.read_bytes()
    frames, metadata = read_video(data)
    assert [number_of(frame) for frame in frames] == list(range(40))
    np.testing.assert_allclose(metadata.frame_times, np.arange(40) / 25, atol=0.0015)
    right = plain(path, return_tensors="pt")["pixel_values"]
    for source in (data, {"bytes": data, "path": None}, {"bytes": None, "path": str(path)}, [data]):
        torch.testing.assert_close(plain(source, return_tensors="pt")["pixel_values"], right, atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"clip\.mp4"):
        plain({"bytes": data[:40], "path": "clip.mp4"}, return_tensors="pt")
    with pytest.raises(ValueError, match="empty"):
        read_video(b"")


def test_videos_of_a_dataset(small, tmp_path, plain):
    datasets = pytest.importorskip("datasets")
    for suffix, codec in ((".avi", "mpeg4"), (".ts", "libx264"), (".webm", "libvpx-vp9")):
        make_video(tmp_path / f"a{suffix}", map(numbered, range(40)), codec, gop=12)
    files = [small, *sorted(tmp_path.iterdir())]
    rows = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    rows += [{"bytes": small.read_bytes(), "path": None}, {"bytes": None, "path": str(small)}]
    features = datasets.Features(
        {"video": datasets.Video(decode=False), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    table = datasets.Dataset.from_dict({"video": rows, "label": [i % 2 for i in range(len(rows))]}, features=features)
    samples = from_hub(table.cast_column("video", datasets.Video(decode=False)))
    clips = ClipDataset(samples, augmentation=whole_clip)
    assert [clips[i]["labels"] for i in range(len(rows))] == [i % 2 for i in range(len(rows))]
    for i, row in enumerate(rows):
        found = [number_of(frame) for frame in clips[i]["frames"]]
        check_even(found, list(range(40)), (np.arange(40) / 25).tolist())
        clip = plain(samples[i].item.load(), return_tensors="pt")["pixel_values"][0]
        assert [number_of(frame) for frame in clip] == found, row["path"]


def test_folders_of_frames(small, tmp_path, plain):
    folder = tmp_path / "frames"
    folder.mkdir()
    suffixes = itertools.cycle([".png", ".jpg", ".webp", ".PNG"])
    for i, suffix in zip(range(40), suffixes, strict=False):
        Image.fromarray(numbered(i)).save(folder / f"frame{i}{suffix}", quality=95)
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("nothing")
    frames, metadata = read_video(folder)
    assert [number_of(frame) for frame in frames] == list(range(40)) and metadata.total_num_frames == 40
    frames, _ = read_video(folder, lambda metadata: [2, 10, 10, 39])
    assert [number_of(frame) for frame in frames] == [2, 10, 10, 39]
    clip = plain(str(folder), return_tensors="pt")["pixel_values"][0]
    check_even([number_of(frame) for frame in clip], list(range(40)), np.arange(40).tolist())
    assert [number_of(frame) for frame in dataset_of(folder)[0]["frames"]] == [number_of(frame) for frame in clip]

    (folder / "clip.mp4").write_bytes(small.read_bytes())
    for read in (
        lambda: read_video(folder),
        lambda: plain(str(folder), return_tensors="pt"),
        lambda: dataset_of(folder)[0],
    ):
        with pytest.raises(ValueError, match=r"holds videos, such as clip\.mp4"):
            read()
    with pytest.raises(ValueError, match="is a folder"):
        open_stream(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="holds no frames"):
        read_video(empty)


def test_files_that_are_no_videos(tmp_path, plain):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "words.mp4").write_text("no video\n" * 500)
    (tmp_path / "table.csv").write_text("path,label\na.mp4,0\n" * 50)
    for name in ("empty.mp4", "words.mp4", "table.csv"):
        for read in (
            lambda path: read_video(path),
            lambda path: plain(str(path), return_tensors="pt"),
            open_stream,
            lambda path: dataset_of(path)[0],
        ):
            with pytest.raises(ValueError, match=name):
                read(tmp_path / name)
    for read in (read_video, open_stream, lambda path: plain(str(path)), lambda path: dataset_of(path)[0]):
        with pytest.raises(FileNotFoundError, match=r"missing\.mp4"):
            read(tmp_path / "missing.mp4")
