"""The page: what is on it and what its button does."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .limits import PageLimits
from .messages import EXAMPLE_NOTE, PLOT_NOTE, face_cards, footer, header, limits_note, message, summary
from .run import analyse_file
from .turns import MOST_WAITING, AnalysisStopped, Report, Turns
from .visits import Visits

if TYPE_CHECKING:
    import gradio

    from ..timeline import S2DTimeline

# Files are looked through every ten minutes and deleted after a day: longer than an analysis should take.
DELETE_CACHE = (600, 86_400)
# A face needs no more than this of a camera, and no sound.
CAMERA = {"video": {"width": {"ideal": 1280}, "height": {"ideal": 720}}, "audio": False}


def import_gradio() -> ModuleType:
    """
    Gradio, which only the demo needs.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError('The demo needs Gradio: pip install "s2d-hf[demo]"') from error
    return gradio


def build_demo(
    analyser: "S2DTimeline",
    shared: bool = False,
    model_name: str | None = None,
    example: Path | None = None,
    limits: PageLimits | None = None,
    visits: Visits | None = None,
) -> "gradio.Blocks":
    """
    The page for an analyser; [`serve_demo`] serves it with its style.

    Args:
        analyser (`S2DTimeline`): Called with the path of a video; several visitors wait for one another.
        shared (`bool`): Say that videos pass through Gradio's servers.
        model_name (`str`, *optional*): What the page says that it runs.
        example (`Path`, *optional*): A video of [`write_example`] to offer. It must stay where it is, outside of the
            folder from which Gradio deletes files.
        limits ([`PageLimits`], *optional*): Of one visitor. The size of uploads is for the server to limit.
        visits ([`Visits`], *optional*): Who is there, and the folder for the results. If not given, everyone stays.

    Raises:
        ImportError: if Gradio is not installed.
    """
    gr = import_gradio()
    limits = PageLimits() if limits is None else limits
    turns = Turns(limits, visits)

    def nothing() -> list[Any]:
        return [None, "", gr.Column(visible=False), "", None, None, None, None]

    def running(is_running: bool) -> list[Any]:
        start = gr.Button("Analysing…" if is_running else "Analyse", interactive=not is_running)
        return [
            gr.Video(interactive=not is_running),
            start,
            gr.Button(visible=is_running),
            gr.Button(interactive=not is_running),
        ]

    # Gradio goes by the hints, and checkers can't see that `gr` is a module
    def show(
        path: str | None,
        request: gr.Request,  # type: ignore[name-defined]  # as above
        progress: gr.Progress = gr.Progress(),  # type: ignore[name-defined]  # noqa: B008
    ) -> Iterator[list[Any]]:
        if path is not None and not os.path.isfile(path):
            yield [None, message("error", "This video is no longer here", "Drop it once more."), *nothing()[2:]]
            return
        folder = _results_folder(visits, request.session_hash)

        def work(report: Report) -> Any:
            return analyse_file(analyser, path, folder, report, limits)

        is_kept = False
        try:
            try:
                address = request.client.host if request.client else None
                outcome = turns.run(
                    request.session_hash, address, work, lambda share, text: progress(share, desc=text)
                )
            except AnalysisStopped as stop:
                outcome = message("warning", stop.title, stop.text)
            if isinstance(outcome, str):
                yield [None, outcome, *nothing()[2:]]
                return
            timeline, files = outcome
            tables = [files["csv"], files["json"], files["mp4"]]
            visible = gr.Column(visible=True)
            is_kept = visits is not None
            yield [files["mp4"], summary(timeline), visible, face_cards(timeline), files["png"], *tables]
        finally:
            if not is_kept:  # else Gradio has copied them when it comes back for more
                shutil.rmtree(folder, ignore_errors=True)

    def start() -> list[Any]:
        return [*running(True), *nothing()]

    def stop(request: gr.Request) -> None:  # type: ignore[name-defined]  # as above
        turns.stop(request.session_hash)

    with gr.Blocks(title="Facial expressions over time", analytics_enabled=False, delete_cache=DELETE_CACHE) as demo:
        gr.HTML(header(model_name, analyser.labels))
        with gr.Row():
            with gr.Column(min_width=300):
                video = gr.Video(
                    label="Your video",
                    sources=["upload", "webcam"],
                    webcam_options=gr.WebcamOptions(constraints=CAMERA),
                    height=380,
                    buttons=[],
                    elem_id="s2d-input",
                )
                gr.HTML(limits_note(limits), elem_id="s2d-limits")
                with gr.Row(visible=example is not None, elem_id="s2d-offer"):
                    example_button = gr.Button(
                        "Try an example", size="sm", scale=0, min_width=0, elem_id="s2d-example"
                    )
                    gr.HTML(EXAMPLE_NOTE)
                with gr.Row():
                    start_button = gr.Button("Analyse", variant="primary", interactive=False, elem_id="s2d-analyse")
                    stop_button = gr.Button("Stop", visible=False, scale=0, min_width=110, elem_id="s2d-stop")
                status = gr.HTML(elem_id="s2d-status")
            with gr.Column(min_width=300):
                annotated = gr.Video(
                    label="Annotated",
                    interactive=False,
                    autoplay=True,
                    height=380,
                    buttons=[],
                    elem_id="s2d-annotated",
                )
        with gr.Column(visible=False, elem_id="s2d-results") as results:
            faces = gr.HTML()
            gr.HTML(PLOT_NOTE, elem_id="s2d-push")
            with gr.Column(elem_id="s2d-plot"):
                plot = gr.Image(label="Timeline", show_label=False, interactive=False, buttons=["fullscreen"])
            with gr.Row():
                downloads = [
                    gr.DownloadButton(label, elem_id=f"s2d-{ending}", min_width=90)
                    for ending, label in (("csv", "↓ CSV"), ("json", "↓ JSON"), ("mp4", "↓ MP4"))
                ]
        gr.HTML(footer(shared))

        shown = [annotated, status, results, faces, plot, *downloads]
        controls = [video, start_button, stop_button, example_button]
        at_once = {"show_progress": "hidden", "queue": False}

        video.change(
            lambda path: [gr.Button(interactive=path is not None), *nothing()],
            video,
            [start_button, *shown],
            **at_once,
        )
        example_button.click(lambda: str(example), None, video, **at_once)
        started = start_button.click(start, None, [*controls, *shown], **at_once)
        ended = started.then(show, video, shown, show_progress_on=annotated, concurrency_limit=MOST_WAITING + 4)
        ended.then(lambda: running(False), None, controls, **at_once)
        stop_button.click(stop, **at_once)
        demo.unload(stop)
    return demo.queue(max_size=MOST_WAITING, api_open=False)


def _results_folder(visits: Visits | None, session: str) -> Path:
    """Where a visit's results are served from, under a name that nobody guesses; or where Gradio fetches them."""
    if visits is None:
        return Path(tempfile.mkdtemp())
    visits.folder.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=visits.folder, prefix=f"{secrets.token_hex(16)}-"))
    visits.claim(session, folder)
    return folder
