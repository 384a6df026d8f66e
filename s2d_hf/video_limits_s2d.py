"""
What one file may cost, so that a damaged or crafted one can't take a machine's memory or time. Each limit is raised by
an environment variable of its name, as in `S2D_MAX_FRAME_PIXELS=100000000`, which reaches worker processes, too.
"""

import os

# name: value, and what it limits
_DEFAULTS = {
    "S2D_MAX_FRAME_PIXELS": 8192 * 4320,  # of a video's frame: 8K; decoders keep up to 17 of them
    "S2D_MAX_IMAGE_PIXELS": 100_000_000,  # of an image
    "S2D_MAX_PIXEL_ASPECT": 16,  # how many times wider than high a pixel may be, or higher than wide
    "S2D_MAX_FRAMES": 10_000_000,  # of a video: four days at 25 a second
    "S2D_MAX_KEPT_BYTES": 2**30,  # of one video's chosen frames, which are in memory together
    "S2D_MAX_DECODED_BYTES": 2**46,  # of all its frames, one after the other: five days of 1080p
    "S2D_MAX_DOWNLOAD_BYTES": 2**33,  # of a video or image at an address
    "S2D_STALL_SECONDS": 15,  # without a frame or a byte
    # that decode one file; with one, damaged files give the same in each run, which FFmpeg's threads don't promise
    "S2D_DECODER_THREADS": min(16, os.cpu_count() or 1),
}


def limit_of(name: str) -> int:
    """
    The limit of this name.

    Raises:
        ValueError: if the environment variable of this name is no positive number.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return _DEFAULTS[name]
    if not text.isascii() or not text.isdecimal() or int(text) == 0:
        raise ValueError(f"The environment variable {name} must be a positive whole number, got {text!r}.")
    return int(text)


def check_limit(name: str, value: float, what: str) -> None:
    """
    Raises:
        ValueError: if `value` is above the limit of this name; `what` begins the message, as in "it has 9 pixels".
    """
    limit = limit_of(name)
    if value > limit:
        raise ValueError(f"{what}, and {limit:,} are allowed: if you trust it, set {name} higher in the environment.")


__all__ = ["check_limit", "limit_of"]
