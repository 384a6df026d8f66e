"""Starting and stopping the page."""

import os
import re
import signal
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .example import write_example
from .leftovers import page_folder, swept
from .limits import PageLimits
from .page import build_demo, import_gradio
from .visits import Visits

if TYPE_CHECKING:
    from ..timeline import S2DTimeline

STYLE = Path(__file__).with_name("style.css")
SCRIPT = Path(__file__).with_name("script.js")

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def launch_demo(
    model: str | os.PathLike,
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    limits: PageLimits | None = None,
    allowed_hosts: Iterable[str] = (),
    **settings: Any,
) -> None:
    """
    Loads a model and serves the page until it is interrupted.

    Args:
        model (`str` or `PathLike`): See [`S2DTimeline.from_pretrained`]. The page shows its name, of a folder or file
            without the path that leads to it.
        host (`str`): The address to listen at; `0.0.0.0` lets other machines in. Browsers give the camera only to
            pages of the same machine or over https.
        port (`int`): The port to listen at.
        share (`bool`): Also serve the page at a public address of Gradio's, through which the videos then pass.
        limits ([`PageLimits`], *optional*): Of one visitor.
        allowed_hosts (`Iterable[str]`): More names under which the page is reached, as that of a proxy in front.
            Requests under other names than these and this machine's own, and from other websites, are refused.
        settings: Of `S2DTimeline.from_pretrained`: `face_detector`, `device`, `fps`, ...

    Raises:
        ImportError: if Gradio is not installed.
        OSError: if the port is taken or not for this user, or the model cannot be loaded.
    """
    import_gradio()  # says what is missing before a model is loaded
    _check_address(host, port)
    from ..timeline import S2DTimeline

    analyser = S2DTimeline.from_pretrained(model, **settings)
    serve_demo(analyser, host, port, share, public_name(model), limits, allowed_hosts)


def public_name(model: str | os.PathLike) -> str:
    """
    What a page that others may see calls a model: its name on the Hub or `hf://` address, but of a local path only
    the last part.

    Example:
    ```python
    >>> public_name("/home/me/models/dfew-set1/"), public_name("someone/dfew-set1")
    ('dfew-set1', 'someone/dfew-set1')
    ```
    """
    text = os.fspath(model)
    if text.startswith("hf://") or (_HUB_NAME.fullmatch(text) and not os.path.exists(text)):
        return text
    return Path(os.path.abspath(text)).name


def serve_demo(
    analyser: "S2DTimeline",
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    model_name: str | None = None,
    limits: PageLimits | None = None,
    allowed_hosts: Iterable[str] = (),
) -> None:
    """
    Serves the page for an analyser that is loaded, until it is interrupted or terminated.

    Videos and what is made of them lie in a temporary folder that only this user may read. What belongs to visitors
    who have left is deleted within minutes, and all of it at the end; after a kill, when the next page starts.

    Args:
        analyser (`S2DTimeline`), host (`str`), port (`int`), share (`bool`): See [`launch_demo`].
        model_name (`str`, *optional*): What the page says that it runs.
        limits ([`PageLimits`], *optional*), allowed_hosts (`Iterable[str]`): See [`launch_demo`].

    Raises:
        ImportError: if Gradio is not installed.
        OSError: if the port is taken or not for this user.
    """
    gradio = import_gradio()
    _check_address(host, port)
    from starlette.middleware import Middleware

    from .gate import Addresses, Gate  # which are made of what Gradio is made of

    limits = PageLimits() if limits is None else limits
    addresses = Addresses(host, share, allowed_hosts)
    with page_folder() as folder, swept(visits := Visits(folder / "files")):
        # What Gradio reads from here only: where files go, that nothing is reported and no run kept in the browser.
        os.environ["GRADIO_TEMP_DIR"] = str(visits.folder)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_RUN_HISTORY"] = "False"
        example = write_example(folder / "astronaut.mp4")
        demo = build_demo(analyser, share, model_name, example, limits, visits)
        demo.launch(
            server_name=host,
            server_port=port,
            share=share,
            theme=gradio.themes.Default(primary_hue="teal", neutral_hue="slate"),
            css_paths=STYLE,
            head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
            footer_links=[],
            ssr_mode=False,
            max_file_size=limits.max_bytes,
            app_kwargs={
                "middleware": [Middleware(Gate, addresses=addresses, limits=limits, visits=visits)],
                "docs_url": None,
                "redoc_url": None,
            },
            prevent_thread_lock=True,
        )
        if demo.share_url:
            addresses.allow(demo.share_url)
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
