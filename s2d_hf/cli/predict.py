"""`s2d-hf predict`: videos, folders of them or a camera to tables, JSON lines, plots and annotated videos."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..file_names_s2d import VIDEO_SUFFIXES, is_url, natural_order
from ..texts_s2d import count_of, listed, visible
from .options import add_model_arguments, chosen_model, model_settings
from .printing import JsonLines, Tables

if TYPE_CHECKING:
    from ..timeline.analysis import S2DTimeline

# Exit codes, beside 0 (every video was analysed, and a face was found) and argparse's 2.
FAILED, NO_FACE = 1, 3
# Of files that a folder holds beside its videos, so many are named.
_MAX_NAMES = 5


def add_predict_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand `predict`."""
    parser = commands.add_parser(
        "predict",
        help="faces and expressions over time in your own videos",
        description=(
            "Find the faces of a video, follow them, and print their expressions over time: in a terminal as a table "
            'for each face, into a pipe or file as JSON lines, one with "event": "scores" for each window of each '
            'face as soon as it is known, and one with "event": "video" for each video at its end (or "event": '
            f'"error"). Exit code: 0 if a face was found, {NO_FACE} if there is none in any video, {FAILED} after an '
            "error. Of a folder's videos, each has files of its own: NAME-VIDEO.SUFFIX for NAME.SUFFIX."
        ),
        epilog="example: s2d-hf predict meeting.mp4 --plot meeting.png --annotate annotated.mp4",
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
    parser.add_argument("--json", action="store_true", help="JSON lines in a terminal, too")
    parser.add_argument("--quiet", action="store_true", help="nothing but the results and errors")
    parser.add_argument("--timings", action="store_true", help="print where the time went to stderr")
    parser.set_defaults(run=_predict)


def find_videos(source: str) -> tuple[list[str | int], dict[str, str]]:
    """
    The videos that `source` names: a file, an address, the number of a camera, or those of a folder, in natural order.

    Returns:
        the videos; and the names of what else the folder holds, each with the reason why it is passed over.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if a folder holds no videos.
    """
    if source.isdecimal() and not os.path.exists(source):
        return [int(source)], {}
    if is_url(source):
        return [source], {}
    path = os.path.expanduser(source)
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise FileNotFoundError(f"There is no video or folder {source}.")
        return [path], {}
    videos: list[str | int] = []
    passed_over: dict[str, str] = {}
    for entry in sorted(Path(path).iterdir(), key=lambda entry: natural_order(entry.name)):
        if entry.name.startswith("."):
            passed_over[entry.name] = "hidden"
        elif entry.is_dir():
            passed_over[entry.name] = "a folder"
        elif entry.suffix.lower() not in VIDEO_SUFFIXES:
            passed_over[entry.name] = "not a video file"
        else:
            videos.append(str(entry))
    if not videos:
        raise ValueError(
            f"The folder {source} holds no videos: no files ending in {', '.join(VIDEO_SUFFIXES)} that aren't hidden."
        )
    return videos, passed_over


def output_path(requested: str, video: str | int, among: int) -> Path:
    """
    Where something of a video is written: the requested file, or, of one among several videos, `name-video.suffix`
    beside it, so that none overwrites another.
    """
    path = Path(requested).expanduser()
    return path if among == 1 else path.with_name(f"{path.stem}-{Path(str(video)).name}{path.suffix}")


def _check_outputs(arguments: argparse.Namespace, videos: list[str | int]) -> None:
    """Everything that would fail after the work is done fails before it."""
    inputs = {Path(video).resolve() for video in videos if isinstance(video, str)}
    allowed = {"timeline": (".csv", ".json"), "plot": (".png", ".pdf", ".svg"), "annotate": (".mp4",)}
    for name, suffixes in allowed.items():
        requested = getattr(arguments, name)
        if requested is None:
            continue
        path = Path(requested).expanduser()
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"--{name} {requested} must end in {' or '.join(suffixes)}.")
        if not path.resolve().parent.is_dir():
            raise FileNotFoundError(f"--{name} {requested}: there is no folder {path.resolve().parent}.")
        if not os.access(path.resolve().parent, os.W_OK):
            raise PermissionError(f"--{name} {requested}: you may not write into {path.resolve().parent}.")
        for target in [path, *(output_path(requested, video, len(videos)) for video in videos)]:
            if target.is_dir():
                raise ValueError(f"--{name} {requested}: {target} is a folder.")
            if target.resolve() in inputs:
                raise ValueError(f"--{name} {requested} would overwrite {target}, one of the videos.")
    if arguments.annotate is not None and any(isinstance(video, int) for video in videos):
        raise ValueError("--annotate needs a video file: a camera's frames are not kept.")


def _predict(arguments: argparse.Namespace) -> int:
    settings, model = model_settings(arguments), chosen_model(arguments)
    videos, passed_over = find_videos(arguments.source)
    _check_outputs(arguments, videos)
    run = _Run(arguments, videos)
    if passed_over and not arguments.quiet:
        print(f"s2d-hf: {_describe_passed_over(arguments.source, passed_over)}", file=sys.stderr)
    with run.quietly():
        from ..model_loading import hide_loading_bars
        from ..model_sources import DEFAULT_MODEL
        from ..timeline import S2DTimeline

        hide_loading_bars()
        analyse = S2DTimeline.from_pretrained(model or DEFAULT_MODEL, **settings)
        analyse.exact_timings = arguments.timings
    try:
        for video in videos:
            run.predict(analyse, video)
    except _NobodyReads:
        return 0
    run.combine()
    if run.num_failed:
        if len(videos) > 1:
            print(f"s2d-hf: {count_of(run.num_failed, 'video')} of {len(videos):,} failed.", file=sys.stderr)
        return FAILED
    if run.num_faces == 0:
        if not run.is_read_by_people:  # who have seen it
            print(f"s2d-hf: no face was found in {arguments.source}.", file=sys.stderr)
        return NO_FACE
    return 0


def _describe_passed_over(folder: str, passed_over: dict[str, str]) -> str:
    names = [f"{visible(name)} ({reason})" for name, reason in passed_over.items()]
    return f"passed over in {folder}: {listed(names, _MAX_NAMES)}."


class _NobodyReads(Exception):
    """Whoever read the results has closed the pipe, as `head` does, and no files are to be written."""


class _Run:
    """The videos of one command: what is printed and written of them, and what became of them."""

    def __init__(self, arguments: argparse.Namespace, videos: list[str | int]):
        self.arguments = arguments
        self.videos = videos
        self.is_read_by_people = sys.stdout is not None and sys.stdout.isatty() and not arguments.json
        self.printer = Tables(is_live=isinstance(videos[0], int)) if self.is_read_by_people else JsonLines()
        self.writes_files = any((arguments.timeline, arguments.plot, arguments.annotate))
        self.is_read = True
        self.num_faces = self.num_failed = 0
        self.analysed: list[str | int] = []

    @contextlib.contextmanager
    def quietly(self) -> Iterator[None]:
        """With --quiet, without what libraries and this one print beside the results."""
        if not self.arguments.quiet:
            yield
            return
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
            yield

    def predict(self, analyse: "S2DTimeline", video: str | int) -> None:
        name = f"camera {video}" if isinstance(video, int) else video
        try:
            with self.quietly():
                timeline = analyse(
                    video,
                    progress=not self.arguments.quiet,
                    on_window=lambda window: self._print("window", name, analyse.labels, window),
                )
                written = self._write(timeline, video)
        except _NobodyReads:
            raise
        except Exception as error:  # decoders raise what they like, and the other videos shall not be lost
            self.num_failed += 1
            self._print("error", name, error)
            known = isinstance(error, (OSError, ValueError)) and name in str(error)
            text = str(error) if known else f"{name}: {error or type(error).__name__}"
            print(f"s2d-hf: error: {visible(text)}", file=sys.stderr)
            return
        self.num_faces += len(timeline.tracks)
        self.analysed.append(video)
        self._print("video", name, timeline)
        if self.arguments.timings:
            self._print_timings(analyse, name, timeline.duration)
        self._name_files(written)

    def combine(self) -> None:
        """Of several videos, one table of all beside the single ones."""
        if self.arguments.timeline is None or len(self.videos) == 1:
            return
        path = Path(self.arguments.timeline).expanduser()
        parts = [output_path(self.arguments.timeline, video, len(self.videos)) for video in self.analysed]
        # one after the other, as a folder's tables may be large
        with open(path, "w", encoding="utf-8", newline="") as combined:
            if path.suffix.lower() == ".csv":
                for number, part in enumerate(parts):
                    with open(part, encoding="utf-8", newline="") as table:
                        header = table.readline()
                        combined.write(header * (number == 0))
                        combined.writelines(table)
            else:
                for number, part in enumerate(parts):
                    combined.write("[" if number == 0 else ",\n")
                    combined.write(part.read_text(encoding="utf-8"))
                combined.write("]" if parts else json.dumps([]))
        self._name_files([path])

    def _write(self, timeline: Any, video: str | int) -> list[Path]:
        """Writes what was asked for; the files."""
        arguments, written = self.arguments, []
        for name in ("timeline", "plot", "annotate"):
            requested = getattr(arguments, name)
            if requested is None:
                continue
            path = output_path(requested, video, len(self.videos))
            if name == "plot":
                timeline.plot(path)
            elif name == "annotate":
                timeline.annotate(path, progress=not arguments.quiet)
            elif path.suffix.lower() == ".csv":
                timeline.to_csv(path)
            else:
                timeline.to_json(path)
            written.append(path)
        return written

    def _print(self, event: str, *details: Any) -> None:
        if not self.is_read:
            return
        try:
            getattr(self.printer, event)(*details)
        except BrokenPipeError:
            self.is_read = False
            # so that Python doesn't try once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not self.writes_files:
                raise _NobodyReads from None

    def _name_files(self, written: list[Path]) -> None:
        if written and not self.arguments.quiet:
            print(f"s2d-hf: wrote {', '.join(map(str, written))}.", file=sys.stderr)

    def _print_timings(self, analyse: Any, name: str, duration: float) -> None:
        stages = dict(analyse.timings)
        total = stages.pop("total")
        # decoding goes on beside the others, and is what they wait for; cuts, tracks and files are the rest
        stages["other"] = total - sum(stages.values())
        shares = ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in stages.items())
        print(f"{name}: {total:.1f} s for {duration:.1f} s of video in {analyse.precision}: {shares}", file=sys.stderr)


__all__ = ["FAILED", "NO_FACE", "add_predict_parser", "find_videos", "output_path"]
