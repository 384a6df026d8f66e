"""What a run of the benchmark is told."""

from collections.abc import Callable
from dataclasses import dataclass

from .measuring import CLOCKS
from .models import SIZES, Size

# Of whole videos.
PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Settings:
    """
    Args:
        size_name (`str`): A key of `SIZES`.
        device (`str`): `"cpu"` or `"cuda"`.
        rounds (`int`): How often every call is timed.
        clock_name (`str`): A key of `CLOCKS`.
        with_memory (`bool`): Measure peak memory, each candidate in a process of its own.
        modes (`tuple[str, ...]`): Names of the modes.
        batch_sizes (`tuple[int, ...]`): Clips at a time in the forward pass.
        num_clips (`int`): Clips over which errors are measured, at least 2.
        against (`str`, *optional*): A commit of this repository, whose model is measured beside.
        reference_device (`str`, *optional*): Where the float32 logits are computed from which errors are measured; by
            default `device`.
        training_batch (`int`): Clips of a training step.
        heights (`tuple[int, ...]`), faces (`tuple[int, ...]`), seconds (`float`): Of the made videos that are
            analysed as a whole: pixels, faces at a time, length.
        kind (`str`): Of the model in whole videos: `"image"`, averaged over the frames, or `"video"`.
        precisions (`tuple[str, ...]`): Of the timeline.
        videos (`int`): Of an archive.
        detector (`str`): The face detector; see [`FaceDetector`].
        detector_weights (`str`, *optional*): Its file of weights, by default the one that face-alignment has kept.
    """

    size_name: str = "paper"
    device: str = "cpu"
    rounds: int = 7
    clock_name: str = "wall"
    with_memory: bool = True
    modes: tuple[str, ...] = ("float32",)
    batch_sizes: tuple[int, ...] = (1,)
    num_clips: int = 2
    against: str | None = None
    reference_device: str | None = None
    training_batch: int = 1
    heights: tuple[int, ...] = (1080,)
    faces: tuple[int, ...] = (1, 2)
    seconds: float = 10.0
    kind: str = "image"
    precisions: tuple[str, ...] = PRECISIONS
    videos: int = 8
    detector: str = "retinaface"
    detector_weights: str | None = None

    @property
    def size(self) -> Size:
        """The models' size."""
        return SIZES[self.size_name]

    @property
    def clock(self) -> Callable[[], float]:
        """Gives the time in seconds."""
        return CLOCKS[self.clock_name]


__all__ = ["PRECISIONS", "Settings"]
