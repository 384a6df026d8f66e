"""A cache that several processes share: one writes it, the others wait."""

import multiprocessing
import os
import socket
from pathlib import Path

from accelerate import PartialState

from s2d_hf.data import ClipDataset, LabelledSamples, Sample, cache
from tests.videos import counting_frames, write_video

from .test_cache import EVEN, cached


def cache_in_process(rank: int, port: int, folder: Path, queue) -> None:
    """Of two processes: tries to cache a broken video, and then a good one, and tells what came of it."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    PartialState(cpu=True)
    cache._HEARTBEAT = 0.0
    read: list[int] = []
    get = ClipDataset.__getitem__
    ClipDataset.__getitem__ = lambda self, index: (read.append(index), get(self, index))[1]
    outcome: list = [rank]
    for name in ("broken.mp4", "good.mp4"):
        samples = LabelledSamples([Sample(name, 0, path=folder / name)] * 3, ["a"])
        try:
            clips = cached(ClipDataset(samples, **EVEN), folder / "cache", shard_size=1)
            outcome.append(([int(item["frames"].sum()) for item in clips], clips.folder.name))
        except Exception as error:
            outcome.append(f"{type(error).__name__}: {error}")
    queue.put([*outcome, len(read)])
    # torch's gloo threads may abort a process while it unloads
    os._exit(0)


def test_main_process_writes_and_the_others_wait(tmp_path):
    write_video(tmp_path / "good.mp4", counting_frames(5))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [context.Process(target=cache_in_process, args=(rank, port, tmp_path, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    (_, failure, written, main_read), (_, told, seen, other_read) = sorted([queue.get(), queue.get()])
    assert "broken.mp4: " in failure and failure.startswith("ValueError")
    assert told == f"RuntimeError: The main process could not write the cache: {failure}"
    assert written == seen and len(set(written[0])) == 1 and len(written[0]) == 3
    assert main_read == 1 + 3 and other_read == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [written[1]]
