"""Drawn faces: what the default training runs on, without a download and with landmarks that are known."""
