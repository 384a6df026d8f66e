"""A local web page that shows what a model sees in a video's faces."""

from .launch import launch_demo, serve_demo
from .page import build_demo

__all__ = ["build_demo", "launch_demo", "serve_demo"]
