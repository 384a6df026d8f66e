import sys

import av
import pytest

from benchmarks import decoding


def test_table(monkeypatch, capsys):
    pytest.importorskip("decord")
    monkeypatch.setattr(sys, "argv", ["decoding", "--rounds", "1", "--seconds", "1"])
    decoding.main()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[2:]] == [["1 s", "decord"], ["1 s", "s2d_hf"]]
    assert rows[2][3] == "1.00" and all(float(cell) >= 0 for row in rows[2:] for cell in row[2:])


def test_longer_videos_repeat_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_PIECE", 1)
    path = decoding.write_long_video(tmp_path / "a.mp4", 2)
    with av.open(str(path)) as container:
        times = [packet.pts * packet.time_base for packet in container.demux(video=0) if packet.size]
    assert sorted(float(time) for time in times) == pytest.approx([i / 25 for i in range(50)])
