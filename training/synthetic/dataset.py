"""A data set of drawn, talking faces on disk: videos, and stills with their landmarks."""

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm.auto import tqdm

from s2d_hf.trainer.landmark_encoder_training import POINTS_FILE

from .clips import (
    EXPRESSIONS,
    STILL_STREAM,
    SYNTHETIC_LABELS,
    SyntheticFaces,
    check_at_least,
    generator,
    label_expression,
)

_SHOWN = 0.6  # how far the expression has unfolded in a still, relative to its clip's strongest frame


def write_synthetic_dataset(
    root: str | Path,
    seed: int,
    train_identities: int = 30,
    test_identities: int = 10,
    clips_per_identity_and_class: int = 2,
    stills_per_clip: int = 2,
    image_size: int = 112,
    num_frames: int = 16,
    ambiguous: float = 0.15,
    occlusion: float = 0.2,
    fps: int = 8,
    workers: int = 2,
    progress: bool = True,
) -> Path:
    """
    Writes a data set of [`SyntheticFaces`]: videos in folders by class, and stills with their landmarks.

    The faces are drawn, not recorded: what a model scores on them says nothing about real faces.

        root/train/<label>/<identity>_<clip>.mp4                    H.264
        root/test/...                                               other identities
        root/stills/train/<label>/<identity>_<clip>_<frame>.png     frames that show their clip's expression
        root/stills/train/points.npz                                their points, see [`read_still_points`]
        root/stills/test/...

    No clip is the exact reverse of another one. Stills are random ones of the frames in which the expression has
    unfolded to 60 % or more of what it reaches in the clip, or the strongest ones where there are too few of these;
    any frames of a neutral clip. The stills of a rising label and of its fading counterpart look alike.

    Args:
        root (`str` or `Path`): The folder to write, which must be new or empty.
        seed (`int`): The same files come out for the same seed and arguments, however many `workers` there are.
        train_identities (`int`): People to train on.
        test_identities (`int`): Other people, to test on; may be 0.
        clips_per_identity_and_class (`int`): Videos of each person for each of `SYNTHETIC_LABELS`.
        stills_per_clip (`int`): At most `num_frames`; may be 0.
        image_size (`int`): Height and width in pixels, an even number.
        num_frames (`int`): Frames of a video.
        ambiguous (`float`): Share of the clips whose expression is weak or mixed.
        occlusion (`float`): Share of the clips with something in front of the face.
        fps (`int`): Frames per second that the videos state.
        workers (`int`): Processes that draw. 0 or 1 draws in this one.
        progress (`bool`): Whether to show a progress bar.

    Returns:
        `Path`: `root`.

    Raises:
        FileExistsError: if `root` is a file, or a folder that is not empty.
        ValueError: if an argument is out of range.
    """
    faces = SyntheticFaces(seed, image_size, num_frames, ambiguous, occlusion)
    check_at_least("train_identities", train_identities, 1)
    check_at_least("test_identities", test_identities, 0)
    check_at_least("clips_per_identity_and_class", clips_per_identity_and_class, 1)
    check_at_least("stills_per_clip", stills_per_clip, 0)
    check_at_least("fps", fps, 1)
    check_at_least("workers", workers, 0)
    if stills_per_clip > num_frames:
        raise ValueError(f"`stills_per_clip` is {stills_per_clip}, but a clip has only {num_frames} frames.")
    if image_size % 2:
        raise ValueError(f"`image_size` must be even, as H.264 wants it, got {image_size}.")
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} exists and is not an empty folder: pass a new folder as `root`.")

    people = {
        "train": range(train_identities),
        "test": range(train_identities, train_identities + test_identities),
    }
    parts = ["", "stills"] if stills_per_clip else [""]
    with _worker_map(workers) as worker_map, _progress_bar(people, clips_per_identity_and_class, progress) as bar:
        for split, identities in people.items():
            if not identities:
                continue
            for part in parts:
                for label in SYNTHETIC_LABELS:
                    (root / part / split / label).mkdir(parents=True)
            jobs = [
                _ClipJob(
                    faces, root, split, identity, label, number, clips_per_identity_and_class, stills_per_clip, fps
                )
                for identity in identities
                for label in SYNTHETIC_LABELS
                for number in range(clips_per_identity_and_class)
            ]
            files, points = [], []
            for clip_files, clip_points in worker_map(_write_clip, jobs):
                files += clip_files
                points.append(clip_points)
                bar.update()
            if stills_per_clip:
                np.savez(root / "stills" / split / POINTS_FILE, files=np.array(files), points=np.concatenate(points))
    return root


@dataclass(frozen=True)
class _ClipJob:
    """One clip to write; `clips` is how many there are of each person and label."""

    faces: SyntheticFaces
    root: Path
    split: str
    identity: int
    label: str
    number: int
    clips: int
    stills: int
    fps: int


def _write_clip(job: _ClipJob) -> tuple[list[str], np.ndarray]:
    """Writes a clip and its stills; returns the stills' paths below their split's folder, and their points."""
    expression, fading = label_expression(job.label)
    # a fading clip is the reverse of the rising one of its index, so the two have indices of their own
    index = job.number + job.clips * fading
    script = job.faces.script(job.identity, job.label, index)
    frames, points = job.faces.draw(job.identity, script)
    name = f"{job.identity:04d}_{job.number:02d}"
    _write_video(job.root / job.split / job.label / f"{name}.mp4", frames, job.fps)
    key = (job.identity, EXPRESSIONS.index(expression), index)
    rng = generator(job.faces.seed, STILL_STREAM, *key)
    times = _draw_still_times(rng, script.intensities * (expression != "neutral"), job.stills)
    files = [f"{job.label}/{name}_{time:02d}.png" for time in times.tolist()]
    for file, time in zip(files, times, strict=True):
        # encoded apart from writing: OpenCV itself can't write to every path
        encoded = cv2.imencode(".png", cv2.cvtColor(frames[time], cv2.COLOR_RGB2BGR))[1]
        (job.root / "stills" / job.split / file).write_bytes(encoded.tobytes())
    return files, points[times]


def _draw_still_times(rng: np.random.Generator, intensities: np.ndarray, stills: int) -> np.ndarray:
    """Ascending indices `(stills,)` of frames that show the expression, from the intensities `(T,)` of a clip."""
    shown = np.flatnonzero(intensities >= _SHOWN * intensities.max())
    if len(shown) < stills:
        return np.sort(np.argsort(-intensities, kind="stable")[:stills])
    return np.sort(rng.choice(shown, stills, replace=False))


def _write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"crf": "18", "preset": "ultrafast", "threads": "1"}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _progress_bar(people: dict[str, range], clips: int, progress: bool) -> tqdm:
    total = sum(map(len, people.values())) * len(SYNTHETIC_LABELS) * clips
    return tqdm(total=total, desc="Drawing clips", unit="clip", disable=not progress)


@contextmanager
def _worker_map(workers: int) -> Iterator[Callable[..., Iterable]]:
    """A `map` over processes, in order; the built-in one for fewer than two of them."""
    if workers < 2:
        yield map
        return
    # forked workers start at once; spawned ones import torch first. Only Linux forks safely.
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    # OpenCV's own threads don't survive a fork
    executor = ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(0,))
    try:
        yield partial(executor.map, chunksize=4)
    finally:
        executor.shutdown(cancel_futures=True)


__all__ = ["write_synthetic_dataset"]
