"""Memory over an hour of video: about a quarter of an hour of two cores, so by hand with `pytest -m slow`."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from s2d_hf.timeline import S2DTimeline

from ..face_videos import PlacedFace, draw_faces
from ..videos import write_video

pytestmark = pytest.mark.slow


def repeat_video(video: Path, target: Path, times: int) -> Path:
    """The same pictures over and over, copied without decoding them."""
    with av.open(str(target), "w") as output:
        stream = None
        for turn in range(times):
            with av.open(str(video)) as source:
                template = source.streams.video[0]
                stream = output.add_stream_from_template(template) if stream is None else stream
                length = template.duration
                for packet in source.demux(template):
                    if packet.size:
                        packet.pts += turn * length
                        packet.dts += turn * length
                        packet.stream = stream
                        output.mux(packet)
    return target


def resident_megabytes() -> float:
    """Memory of this process, as Linux counts it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory as Linux tells it")
def test_memory_is_flat_over_an_hour(converted, yunet_weights, tmp_path):
    """One face that stays for the whole hour, and another one that comes and goes every ten seconds."""

    def scene(seconds: float) -> np.ndarray:
        faces = [PlacedFace((100 + 10 * np.sin(0.2 * np.pi * seconds), 90), 70)]
        return draw_faces(faces + ([PlacedFace((250, 95), 60, mirrored=True)] if seconds < 6 else []), 180, 320)

    ten_seconds = write_video(tmp_path / "ten.mp4", [scene(i / 25) for i in range(250)])
    video = repeat_video(ten_seconds, tmp_path / "hour.mp4", 360)
    # landmarks for alignment would take most of the time, and no memory that stays
    analyse = S2DTimeline.from_pretrained(converted, "yunet", yunet_weights, do_align_faces=False)
    memory: dict[int, float] = {}

    def watch(window) -> None:
        memory.setdefault(int(window.end // 60), resident_megabytes())

    timeline = analyse(video, progress=False, on_window=watch)
    assert timeline.duration == pytest.approx(3600, abs=1) and len(timeline.tracks) == 361
    assert timeline.tracks[0].end == pytest.approx(3600, abs=0.5)
    print(f"resident memory in MiB by minute: {[round(memory[minute]) for minute in sorted(memory)]}")
    print(f"seconds by stage: {analyse.timings}")
    # the results of an hour: seven small pictures of 80 x 80 pixels for each of 361 tracks are 46 MiB
    assert max(memory.values()) - memory[3] < 90
