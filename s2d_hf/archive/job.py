"""The prediction over a whole archive, on processes or on Ray."""

import functools
import inspect
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..precision import find_precision
from .isolation import STALL_LIMIT
from .process_job import find_processes, run_processes
from .ray_job import run_ray
from .records import ArchiveRecords, ArchiveSummary
from .sources import list_videos
from .worker import Analyser

if TYPE_CHECKING:
    import datasets

    from ..timeline.analysis import S2DTimeline

# Settings that say where and how fast to compute. With other ones, a job may go on.
NOT_RECORDED = ("device", "batch_size")
# What earlier versions computed in, and recorded as `None`, unless told otherwise.
_EARLIER_DTYPE = "float32"


def analyse_archive(
    source: "str | os.PathLike | datasets.Dataset",
    output: str | os.PathLike,
    model: str | os.PathLike,
    *,
    ray: bool = False,
    num_actors: int | None = None,
    ray_address: str | None = None,
    path_column: str | None = None,
    split: str | None = None,
    retry_failed: bool = True,
    progress: bool = True,
    stall_limit: float | None = STALL_LIMIT,
    **settings: Any,
) -> ArchiveSummary | None:
    """
    Finds the faces in all videos of an archive and their expressions over time.

    The results go into a folder, which [`read_archive`] reads: what is done is not done again, so after a kill the
    same call goes on. Videos that can't be analysed are listed with the reason in `failures.csv`, all in
    `videos.parquet`. See [`run_processes`] and [`run_ray`] for how the work is shared.

    Args:
        source (`str`, `Path` or `datasets.Dataset`): A folder, a table of paths or a dataset; see [`list_videos`].
        output (`str` or `Path`): The folder to write, or to go on with.
        model (`str` or `Path`): What `S2DTimeline.from_pretrained` takes: a folder, a name on the Hub, or an authors'
            checkpoint.
        ray (`bool`): Run on Ray, and not on this process and those that `accelerate launch` has started beside it.
        num_actors (`int`, *optional*), ray_address (`str`, *optional*): With `ray`; see [`run_ray`].
        path_column (`str`, *optional*), split (`str`, *optional*): See [`list_videos`].
        retry_failed (`bool`): Try videos again that failed in an earlier run.
        progress (`bool`): Show a progress bar.
        stall_limit (`float`, *optional*): Seconds without progress after which a video is ended, and recorded as
            failed. Videos are analysed in processes beside this one, which may die; with `None`, and on Windows, in
            this one.
        settings: For `S2DTimeline.from_pretrained`: `face_detector`, `fps`, `window_stride`, `device` and others. But
            for `device` and `batch_size`, they must be the same when a job goes on. What the `dtype` `"auto"` is, the
            machine that begins the job decides for all that take part, and it stays so.

    Returns:
        [`ArchiveSummary`]: of all that is in `output`; `None` in processes of `accelerate launch` beside the main one.

    Raises:
        FileNotFoundError: if there is no such source.
        ImportError: if a library is missing that the source or Ray needs.
        JobRunningError: if another job writes into `output`.
        RuntimeError: if the job on Ray fails as a whole.
        TypeError: if a setting is unknown.
        ValueError: if arguments are wrong, or `output` was begun with another source, model or other settings.
    """
    if not ray and (num_actors is not None or ray_address is not None):
        raise ValueError("`num_actors` and `ray_address` are for jobs on Ray: pass `ray=True` with them.")
    if (
        isinstance(source, (str, os.PathLike))
        and os.path.isdir(source)
        and Path(source).resolve() == Path(output).resolve()
    ):
        raise ValueError(f"`output` is the folder of the videos, {source}: name another one.")
    if stall_limit is not None and not stall_limit > 0:
        raise ValueError(f"`stall_limit` must be positive, got {stall_limit}.")
    from ..timeline.analysis import S2DTimeline

    begun = _settings_of(output)
    wanted = settings.get("dtype")
    if wanted in (None, "auto") and begun is not None:  # whatever this machine would choose now
        wanted = begun.get("dtype") or _EARLIER_DTYPE
    settings["dtype"] = find_precision(wanted, settings.get("device"))
    # other machines' processes run in other folders
    model = _absolute(model)
    for name in ("face_detector_weights", "landmark_weights"):
        if settings.get(name) is not None:
            settings[name] = _absolute(settings[name])
    recorded = {
        "source": _describe_source(source),
        "path_column": path_column,
        "split": split,
        "model": model,
        **_complete_settings(S2DTimeline, model, settings),
    }
    if begun is not None and begun.get("dtype", "") is None and recorded["dtype"] == _EARLIER_DTYPE:
        recorded["dtype"] = None
    items = list_videos(source, path_column, split)
    common: dict[str, Any] = {"settings": recorded, "retry_failed": retry_failed, "progress": progress}
    if ray:
        factory = functools.partial(_load_analyser, model, settings)
        use_gpus = str(settings.get("device") or "cuda").startswith("cuda")
        on_ray: dict[str, Any] = {"num_actors": num_actors, "address": ray_address, "use_gpus": use_gpus}
        on_ray["stall_limit"] = stall_limit or math.inf
        return run_ray(items, output, factory, **on_ray, **common)
    if str(settings.get("device") or "cuda") == "cuda":  # whichever it is, to each process its own
        settings["device"] = _own_device() or settings.get("device")
    common["stall_limit"] = stall_limit if os.name == "posix" else None
    return run_processes(items, output, functools.partial(_load_analyser, model, settings), **common)


def _settings_of(output: str | os.PathLike) -> dict[str, Any] | None:
    """What a folder was begun with; `None` if it wasn't."""
    try:
        return ArchiveRecords(output).settings
    except FileNotFoundError:
        return None


def _load_analyser(model: str, settings: dict[str, Any]) -> Analyser:
    from ..timeline.analysis import S2DTimeline

    return S2DTimeline.from_pretrained(model, **settings)


def _complete_settings(analyser: "type[S2DTimeline]", model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """
    What the results depend on: the settings with the defaults of `from_pretrained` and of the constructor, to which
    it hands the rest on. One that is spelt out is no other one.
    """
    loading = inspect.signature(analyser.from_pretrained).bind(model, **settings)
    loading.apply_defaults()
    complete = dict(list(loading.arguments.items())[1:])
    rest = complete.pop("settings")
    constructing = inspect.signature(analyser).bind(None, None, **rest)
    constructing.apply_defaults()
    complete |= dict(list(constructing.arguments.items())[2:])
    # a token must not be written down
    complete["revision"] = (complete.pop("hub_arguments") or {}).get("revision")
    return {name: value for name, value in complete.items() if name not in NOT_RECORDED}


def _own_device() -> str | None:
    """The device of this process among several; one process alone leaves the choice to the analyser."""
    state = find_processes()
    return str(state.device) if state.num_processes > 1 else None


def _absolute(source: str | os.PathLike) -> str:
    """A path as it is named from every folder; a name or an address as it is."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else str(source)


def _describe_source(source: Any) -> str:
    if not isinstance(source, (str, os.PathLike)):
        return f"datasets.Dataset {source.info.dataset_name} [{source.split}]"
    return _absolute(source)


__all__ = ["analyse_archive"]
