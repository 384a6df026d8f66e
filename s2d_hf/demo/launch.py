"""Starting and stopping the page."""

import os
import signal
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .page import build_demo, import_gradio

if TYPE_CHECKING:
    from ..timeline import S2DTimeline

STYLE = Path(__file__).with_name("style.css")
SCRIPT = Path(__file__).with_name("script.js")


def launch_demo(
    model: str | os.PathLike, host: str = "127.0.0.1", port: int = 7860, share: bool = False, **settings: Any
) -> None:
    """
    Loads a model and serves the page until it is interrupted.

    Args:
        model (`str` or `PathLike`): Folder or Hub name of a video model.
        host (`str`): The address to listen at; `0.0.0.0` lets other machines in. Browsers give the camera only to
            pages of the same machine or over https.
        port (`int`): The port to listen at.
        share (`bool`): Also serve the page at a public address of Gradio's, through which the videos then pass.
        settings: Of `S2DTimeline.from_pretrained`: `face_detector`, `device`, `fps`, ...

    Raises:
        ImportError: if Gradio is not installed.
        OSError: if the port is taken or not for this user, or the model cannot be loaded.
    """
    import_gradio()  # says what is missing before a model is loaded
    _check_address(host, port)
    from ..timeline import S2DTimeline

    serve_demo(S2DTimeline.from_pretrained(model, **settings), host, port, share)


def serve_demo(analyser: "S2DTimeline", host: str = "127.0.0.1", port: int = 7860, share: bool = False) -> None:
    """
    Serves the page for an analyser that is loaded, until it is interrupted or terminated.

    Videos and what is made of them lie in a temporary folder that only this user may read. It is deleted at the end.

    Args:
        analyser (`S2DTimeline`), host (`str`), port (`int`), share (`bool`): See [`launch_demo`].

    Raises:
        ImportError: if Gradio is not installed.
        OSError: if the port is taken or not for this user.
    """
    gradio = import_gradio()
    _check_address(host, port)
    with tempfile.TemporaryDirectory(prefix="s2d-hf-demo-") as folder:
        # What Gradio reads from here only: where files go, that nothing is reported and no run kept in the browser.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_RUN_HISTORY"] = "False"
        demo = build_demo(analyser, shared=share)
        demo.launch(
            server_name=host,
            server_port=port,
            share=share,
            theme=gradio.themes.Default(primary_hue="teal", neutral_hue="slate"),
            css_paths=STYLE,
            head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
            footer_links=[],
            ssr_mode=False,
            prevent_thread_lock=True,
        )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder is deleted then, too
        demo.block_thread()


def _check_address(host: str, port: int) -> None:
    """Gradio's own message names environment variables only."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a page that has just stopped is no obstacle
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                f"The page cannot listen at {host}, port {port}: {error.strerror}. Choose another."
            ) from error
