"""From an uploaded video to files that the page shows, or to a message that says why not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..file_names_s2d import on_one_line
from ..video_files_s2d import open_video
from .limits import PageLimits
from .messages import message, summary
from .turns import AnalysisStopped

if TYPE_CHECKING:
    from ..timeline import S2DTimeline, VideoTimeline

logger = logging.get_logger(__name__)

ANALYSIS_SHARE = 0.85  # of the progress bar; the rest is for drawing


def analyse_file(
    analyser: "S2DTimeline", path: str | None, folder: Path, report: Callable[[float, str], Any], limits: PageLimits
) -> "tuple[VideoTimeline, dict[str, Path]] | str":
    """
    Analyses a video and writes the annotated video, the plot and the tables.

    Args:
        analyser (`S2DTimeline`): What finds faces and their expressions.
        path (`str`, *optional*): The video.
        folder (`Path`): Where to write.
        report (`Callable[[float, str], Any]`): Is told the fraction that is done and what is being done; may raise
            [`AnalysisStopped`].
        limits ([`PageLimits`]): How long the video may be.

    Returns:
        The timeline and the files by their endings (`mp4`, `png`, `csv`, `json`); or, where there is nothing to show,
        a message as HTML. No error of the analysis is raised: unexpected ones are logged.
    """
    if path is None:
        return message("warning", "There is no video yet", "Drop one on the left, or record one with the camera.")
    name = Path(path).name
    try:
        report(0.0, "Looking for faces")
        timeline = analyser(path, progress=False, on_progress=_progress_reporter(path, report, limits))
        if not timeline.tracks:
            return summary(timeline)
        report(ANALYSIS_SHARE, "Drawing the results")
        return timeline, _write_files(timeline, path, folder, report)
    except AnalysisStopped as stop:
        return message("warning", stop.title, stop.text)
    except (OSError, ValueError) as error:
        logger.warning(on_one_line(f"{path}: {error}"))
        text = str(error).replace(str(Path(path).resolve()), name).replace(path, name)
        return message("error", "This video could not be analysed", text)
    except Exception as error:
        logger.exception(f"The analysis of {path} failed.")
        return message(
            "error",
            "Something went wrong",
            f"The analysis of {name} stopped with an unexpected {type(error).__name__}. The terminal in which the "
            "page was started shows what happened.",
        )


def _progress_reporter(path: str, report: Callable[[float, str], Any], limits: PageLimits) -> Callable[[float], None]:
    """Turns the times of the frames into the share of the video that has been looked at."""
    with open_video(path, tells_damage=False) as stream:
        duration = stream.duration
    limits.check_duration(duration)

    def on_progress(seconds: float) -> None:
        limits.check_duration(seconds)  # the file may not tell, or lie
        share = min(1.0, seconds / duration) if duration else 0.0
        of_all = f" of {duration:.0f}" if duration else ""
        report(ANALYSIS_SHARE * share, f"Seen {seconds:.0f}{of_all} s")

    return on_progress


def _write_files(
    timeline: "VideoTimeline", path: str, folder: Path, report: Callable[[float, str], Any]
) -> dict[str, Path]:
    named = replace(timeline, source=Path(path).name)  # the tables shall not hold a temporary path
    stem = Path(path).stem
    files = {ending: folder / f"{stem}_timeline.{ending}" for ending in ("csv", "json", "png")}
    files["mp4"] = folder / f"{stem}_annotated.mp4"
    named.to_csv(files["csv"])
    named.to_json(files["json"])
    named.plot(files["png"])

    def on_progress(seconds: float) -> None:
        share = min(1.0, seconds / timeline.duration) if timeline.duration else 0.0
        report(ANALYSIS_SHARE + (1 - ANALYSIS_SHARE) * share, "Drawing the results")

    named.annotate(files["mp4"], source=path, progress=False, on_progress=on_progress)
    return files
