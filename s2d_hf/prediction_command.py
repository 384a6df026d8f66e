"""`s2d-hf predict`: videos, folders of them or a camera to JSON lines, tables, plots and annotated videos."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from .frames_s2d import VIDEO_SUFFIXES, is_url, natural_order

# Exit codes, beside 0 (every video was analysed, and a face was found) and argparse's 2.
FAILED, NO_FACE = 1, 3
MODEL_VARIABLE = "S2D_HF_MODEL"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of everything that finds faces: model, detector, device and windows."""
    parser.add_argument(
        "--model",
        default=os.environ.get(MODEL_VARIABLE),
        metavar="NAME",
        help=f"the model's folder or its name on the Hub (default: the environment's {MODEL_VARIABLE})",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the model (default: float32)")
    parser.add_argument("--face-detector", metavar="NAME", help="retinaface (default), yunet, sfd, blazeface or scrfd")
    parser.add_argument(
        "--face-detector-weights", metavar="FILE", help="the detector's weights (default: downloaded once)"
    )
    parser.add_argument("--fps", type=float, default=8.0, help="frames a second that are looked at (default: 8)")
    parser.add_argument(
        "--window-stride", type=int, default=8, metavar="N", help="frames from window to window (default: 8)"
    )
    parser.add_argument(
        "--detect-every", type=int, default=2, metavar="N", help="look for faces in every N-th frame (default: 2)"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="windows at a time (default: 8 on a GPU, else 1)")


def model_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    What [`S2DTimeline.from_pretrained`] takes beside the model, of the parsed options.

    Raises:
        ValueError: if no model is named.
    """
    if not arguments.model:
        raise ValueError(f"name a model: --model FOLDER_OR_NAME, or set {MODEL_VARIABLE} in the environment.")
    names = (
        "device", "dtype", "face_detector", "face_detector_weights", "fps", "window_stride", "detect_every",
        "batch_size",
    )  # fmt: skip
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def add_predict_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand `predict`."""
    parser = commands.add_parser(
        "predict",
        help="faces and expressions over time in your own videos",
        description=(
            "Find the faces of a video, follow them, and print their expressions over time as JSON lines: one with "
            '"event": "scores" for each window of each face as soon as it is known, and one with "event": "video" for '
            'each video at its end (or "event": "error"). '
            f"Exit code: 0 if a face was found, {NO_FACE} if there is none in any video, {FAILED} after an error."
        ),
        epilog="example: s2d-hf predict meeting.mp4 --model dfew-set1 --plot meeting.png --annotate annotated.mp4",
    )
    parser.add_argument(
        "source", metavar="VIDEO|FOLDER|CAMERA", help="a file or URL, a folder of videos, or a camera: 0, 1, ..."
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--timeline", metavar="FILE", help="write the scores of every window, as .csv, or everything, as .json"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the scores over time (.png, .pdf or .svg)")
    parser.add_argument("--annotate", metavar="FILE", help="write the video with boxes, labels and bars (.mp4)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--timings", action="store_true", help="print where the time went to stderr")
    parser.set_defaults(run=_predict)


def find_videos(source: str) -> list[str | int]:
    """
    The videos that `source` names: a file, an address, the number of a camera, or those of a folder, in natural order.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if a folder holds no videos.
    """
    if source.isdecimal() and not os.path.exists(source):
        return [int(source)]
    if not os.path.isdir(source):
        if not is_url(source) and not os.path.exists(source):
            raise FileNotFoundError(f"There is no video or folder {source}.")
        return [source]
    files = [path for path in Path(source).iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    if not files:
        raise ValueError(f"The folder {source} holds no videos: no files ending in {', '.join(VIDEO_SUFFIXES)}.")
    return [str(path) for path in sorted(files, key=lambda path: natural_order(path.name))]


def output_path(requested: str, video: str | int, among: int) -> Path:
    """
    Where something of a video is written: the requested file, or, of one among several videos, `name-video.suffix`
    beside it, so that none overwrites another.
    """
    path = Path(requested)
    return path if among == 1 else path.with_name(f"{path.stem}-{Path(str(video)).name}{path.suffix}")


def _check_outputs(arguments: argparse.Namespace, videos: list[str | int]) -> None:
    """Everything that would fail after the work is done fails before it."""
    allowed = {"timeline": (".csv", ".json"), "plot": (".png", ".pdf", ".svg"), "annotate": (".mp4",)}
    for name, suffixes in allowed.items():
        requested = getattr(arguments, name)
        if requested is None:
            continue
        path = Path(requested)
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"--{name} {path} must end in {' or '.join(suffixes)}.")
        if not path.resolve().parent.is_dir():
            raise FileNotFoundError(f"--{name} {path}: there is no folder {path.resolve().parent}.")
        for video in videos:
            target = output_path(requested, video, len(videos)).resolve()
            if isinstance(video, str) and target == Path(video).resolve():
                raise ValueError(f"--{name} {path} would overwrite the video itself.")
    if arguments.annotate is not None and any(isinstance(video, int) for video in videos):
        raise ValueError("--annotate needs a video file: a camera's frames are not kept.")


def _predict(arguments: argparse.Namespace) -> int:
    settings = model_settings(arguments)
    videos = find_videos(arguments.source)
    _check_outputs(arguments, videos)
    from .timeline import S2DTimeline

    analyse = S2DTimeline.from_pretrained(arguments.model, **settings)
    num_faces = num_failed = 0
    for video in videos:
        try:
            num_faces += _predict_one(analyse, video, arguments, len(videos))
        except (OSError, ValueError) as error:
            num_failed += 1
            _print_line({"event": "error", "video": _name(video), "error": str(error)}, sys.stdout)
            print(f"s2d-hf: error: {error}", file=sys.stderr)
    if num_failed:
        return FAILED
    if num_faces == 0:
        print(f"s2d-hf: no face was found in {arguments.source}.", file=sys.stderr)
        return NO_FACE
    return 0


def _predict_one(analyse: Callable, video: str | int, arguments: argparse.Namespace, among: int) -> int:
    """Analyses a video and writes what was asked for; the number of its faces."""

    def print_window(window: Any) -> None:
        scores = dict(zip(analyse.labels, _rounded(window.scores), strict=True))
        line = {
            "event": "scores",
            "video": _name(video),
            "track": window.track,
            "start": round(window.start, 3),
            "end": round(window.end, 3),
            "label": max(scores, key=scores.get),
            "scores": scores,
        }
        _print_line(line, sys.stdout)

    timeline = analyse(video, progress=not arguments.quiet, on_window=print_window)
    if arguments.timings:
        total = analyse.timings["total"]
        shares = ", ".join(
            f"{name} {seconds / total:.0%}" for name, seconds in analyse.timings.items() if name != "total"
        )
        print(f"{_name(video)}: {total:.1f} s for {timeline.duration:.1f} s of video: {shares}", file=sys.stderr)
    if arguments.timeline is not None:
        path = output_path(arguments.timeline, video, among)
        (timeline.to_csv if path.suffix.lower() == ".csv" else timeline.to_json)(path)
    if arguments.plot is not None:
        timeline.plot(output_path(arguments.plot, video, among))
    if arguments.annotate is not None:
        timeline.annotate(output_path(arguments.annotate, video, among), progress=not arguments.quiet)
    tracks = [
        {
            "track": face.track,
            "start": round(face.start, 3),
            "end": round(face.end, 3),
            "scores": dict(zip(analyse.labels, _rounded(face.mean_scores), strict=True)),
            "segments": [
                {"label": part.label, "start": round(part.start, 3), "end": round(part.end, 3),
                 "score": round(part.score, 4)}
                for part in face.segments
            ],
        }
        for face in timeline.tracks
    ]  # fmt: skip
    line = {"event": "video", "video": _name(video), "duration": round(timeline.duration, 3), "tracks": tracks}
    _print_line(line | {"cuts": _rounded(timeline.cuts, 3)}, sys.stdout)
    return len(timeline.tracks)


def _name(video: str | int) -> str:
    return f"camera {video}" if isinstance(video, int) else video


def _rounded(values: Any, digits: int = 4) -> list[float]:
    return [round(float(value), digits) for value in values]


def _print_line(line: dict[str, Any], stream: TextIO) -> None:
    print(json.dumps(line, ensure_ascii=False), file=stream, flush=True)
