"""`s2d-hf demo`: the page."""

import argparse
import re

from .options import add_model_arguments, chosen_model, model_settings, whole_number


def add_demo_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand `demo`."""
    parser = commands.add_parser(
        "demo",
        help="a page in the browser: drop a video, see its faces and expressions",
        description='A page on this machine to try a model with videos and the webcam (pip install "s2d-hf[demo]").',
        epilog="example: s2d-hf demo --model affectnet7",
    )
    add_model_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: this machine only)")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), default=7860, metavar="N", help="the port to listen at (default: 7860)"
    )
    parser.add_argument("--share", action="store_true", help="also at a public address, through Gradio's servers")
    parser.add_argument(
        "--allowed-host",
        action="append",
        type=_host_name,
        metavar="NAME",
        help="another name under which the page is reached, as that of a proxy in front; may be repeated",
    )
    parser.add_argument("--max-upload", type=whole_number(1), metavar="MB", help="the size of a video (default: 200)")
    parser.add_argument(
        "--max-duration", type=whole_number(1), metavar="SECONDS", help="the length of a video (default: 600)"
    )
    parser.add_argument(
        "--max-wait",
        type=whole_number(1),
        metavar="SECONDS",
        help="how long one analysis may keep other visitors waiting before it is ended (default: 600)",
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    settings, model = model_settings(arguments), chosen_model(arguments)
    from ..demo import launch_demo
    from ..demo.limits import PageLimits
    from ..model_loading import hide_loading_bars
    from ..model_sources import DEFAULT_MODEL

    hide_loading_bars()
    given = {name: getattr(arguments, name) for name in ("max_upload", "max_duration", "max_wait")}
    launch_demo(
        model or DEFAULT_MODEL,
        arguments.host,
        arguments.port,
        arguments.share,
        PageLimits(**{name: value for name, value in given.items() if value is not None}),
        arguments.allowed_host or (),
        **settings,
    )


def _host_name(text: str) -> str:
    """The type of an option that takes the name of a host, without a scheme, port or path."""
    if re.fullmatch(r"[A-Za-z0-9_.:-]+", text) is None or text.count(":") == 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a host, such as faces.example.org")
    return text


__all__ = ["add_demo_parser"]
