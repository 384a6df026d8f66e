"""
Runs S2D's timeline on videos and says what came of it: in this process, or as a program with another s2d_hf.

    python -m benchmarks.timeline_runner

reads the arguments of [`TimelineRunner`] and then those of its calls from stdin, and writes the answers to stdout, all
as lines of JSON: `{"error": ...}` where it can't answer.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import s2d_hf
from s2d_hf import S2DForVideoClassification, S2DTimeline, S2DVideoProcessor


class KnownFaces:
    """Takes the face detector's place: costs no time, and its boxes stand still."""

    def __init__(self, boxes: Sequence[Sequence[float]]):
        self.boxes = np.array([(*box, 1.0) for box in boxes])

    def __call__(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self.boxes.copy() for _ in frames]


def load_timeline(
    folder: str, device: str, dtype: str, detector: str | None = None, weights: str | None = None
) -> S2DTimeline:
    """
    A timeline with the model and the processor of a folder.

    Args:
        folder (`str`), device (`str`), dtype (`str`): As in `S2DTimeline.from_pretrained`; with `"int8"`, what is not
            multiplied in it is in bfloat16.
        detector (`str`, *optional*), weights (`str`, *optional*): The face detector and its weights, which are loaded
            now. If not given, the processor needs [`KnownFaces`].
    """
    given = {} if detector is None else {"face_detector": detector, "face_detector_weights": weights}
    processor = S2DVideoProcessor.from_pretrained(folder, device=device, **given)
    other = "bfloat16" if dtype == "int8" else dtype
    model = S2DForVideoClassification.from_pretrained(folder, dtype=getattr(torch, other)).to(device)
    if dtype == "int8":
        from s2d_hf.int8_linear import use_int8  # which older versions don't have

        use_int8(model)
    if detector is not None:
        processor.get_face_detector(torch.device(device))
    return S2DTimeline(model, processor)


def show_faces(analyse: S2DTimeline, boxes: Sequence[Sequence[float]]) -> None:
    """Tells a timeline where the faces are, in pixels, in place of its face detector."""
    known = KnownFaces(boxes)
    analyse.processor.get_face_detector = lambda *_, **__: known


class TimelineRunner:
    """
    Timelines of one model in several precisions, each loaded when it is first called.

    Args:
        folder (`str`), device (`str`), detector (`str`, *optional*), weights (`str`, *optional*): See
            [`load_timeline`].
    """

    def __init__(self, folder: str, device: str, detector: str | None = None, weights: str | None = None):
        self.folder, self.device, self.detector, self.weights = folder, device, detector, weights
        self.loaded: dict[str, S2DTimeline] = {}

    def __call__(
        self,
        video: str,
        dtype: str = "float32",
        boxes: Sequence[Sequence[float]] | None = None,
        fast_cpu: bool | None = None,
    ) -> dict[str, Any]:
        """
        Args:
            video (`str`): The file.
            dtype (`str`): Of the model; with `"int8"`, the rest of it is in bfloat16.
            boxes (`Sequence`, *optional*): Where the faces are, if no detector finds them.
            fast_cpu (`bool`, *optional*): Turns the fast path on or off; by default as the timeline has it.

        Returns:
            `dict`: `timings`, in seconds, `tracks`, their number, and `windows`, of each its middle in seconds and
            its scores.
        """
        if dtype not in self.loaded:
            self.loaded[dtype] = load_timeline(self.folder, self.device, dtype, self.detector, self.weights)
        analyse = self.loaded[dtype]
        if fast_cpu is not None:
            from s2d_hf.fast_cpu import use_fast_cpu  # which older versions don't have

            use_fast_cpu(analyse.model, on=fast_cpu)
        if boxes is not None:
            show_faces(analyse, boxes)
        timeline = analyse(video, progress=False)
        windows = [
            [float(time), *map(float, scores)]
            for track in timeline.tracks
            for time, scores in zip(track.times, track.scores, strict=True)
        ]
        return {"timings": dict(analyse.timings), "tracks": len(timeline.tracks), "windows": windows}


def serve() -> None:
    """The program, until there are no more lines."""
    # what libraries print is no answer
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    run: Callable[..., Any] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if run is None:
                run, answer = TimelineRunner(**request), {"package": s2d_hf.__file__}
            else:
                answer = run(**request)
        except Exception as error:  # whatever another version has otherwise
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    serve()


__all__ = ["KnownFaces", "TimelineRunner", "load_timeline", "show_faces"]
