"""An archive on a Ray cluster, or on a local Ray: actors hold the model, and Ray replaces those that die."""

import faulthandler
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm

from ..timeline.results import VideoTimeline
from .isolation import STALL_LIMIT
from .records import ArchiveRecords, ArchiveSummary, locked
from .sources import ArchiveItem
from .worker import Analyser, analyse_item

# The job passes around numbers only. Without a limit, Ray would reserve a third of the memory.
LOCAL_OBJECT_STORE_BYTES = 128 * 2**20
# For the first answer of a cluster.
CONNECT_SECONDS = 10


class VideoActor:
    """
    Analyses the videos that Ray Data hands to it, in a process of its own.

    Args:
        items (`list`): A reference to the archive's items in Ray's object store; in a list, so that Ray leaves it
            alone.
        output (`str`): The folder of the records.
        factory (`Callable`): Makes the analyser.
        num_threads (`int`): Threads for torch's operations on the CPU.
        stall_limit (`float`): Seconds without progress in a video after which the process ends.
    """

    def __init__(
        self, items: list, output: str, factory: Callable[[], Analyser], num_threads: int, stall_limit: float
    ):
        import ray

        torch.set_num_threads(num_threads)
        self.items = ray.get(items[0])
        self.records = ArchiveRecords(output)
        self.analyser = _ends_where_it_stands_still(factory(), stall_limit)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list]:
        """From `index`, of one item, to `index` and `status`. What is found goes into the records."""
        index = int(batch["index"][0])
        item = self.items[index]
        # Ray runs a task again if the actor died after it had finished
        if self.records.is_done(item.name):
            return {"index": [index], "status": ["done"]}
        try:
            status = analyse_item(item, self.analyser, self.records)
        except torch.AcceleratorError:
            os._exit(1)  # the GPU is lost for this process only: Ray starts another
        return {"index": [index], "status": [status]}


def run_ray(
    items: Sequence[ArchiveItem],
    output: str | os.PathLike,
    factory: Callable[[], Analyser],
    settings: Mapping[str, Any],
    num_actors: int | None = None,
    address: str | None = None,
    use_gpus: bool = True,
    retry_failed: bool = True,
    progress: bool = True,
    stall_limit: float = STALL_LIMIT,
) -> ArchiveSummary:
    """
    Analyses the videos of an archive that are not done yet as a Ray Data job.

    On a cluster, `output`, the videos, the model and the cache of Hugging Face must lie on a file system that all
    nodes share, under the same paths, and this package must be installed on all of them.

    A broken video is recorded as failed. An actor that dies (killed, out of memory, a crash in a decoder) is replaced,
    and its video begun again; one over which three actors have died is recorded as failed. After Ctrl-C or a kill of
    this process, the same call goes on with what is left.

    Args:
        items (`Sequence[ArchiveItem]`): The videos; their names must be unique.
        output (`str` or `Path`): The folder of the records.
        factory (`Callable`): Makes the analyser, once in each actor; it is pickled.
        settings (`Mapping`): What the results depend on; the folder must not have been begun with others.
        num_actors (`int`, *optional*): How many videos are analysed at once. If not given, one for each GPU of the
            cluster, or for each core where there is none. More than that share them.
        address (`str`, *optional*): A cluster's address, `"auto"` for the one that this machine is part of. If not
            given, a Ray that this process has started, the cluster that the environment variable `RAY_ADDRESS` names,
            or a local Ray, which is stopped at the end.
        use_gpus (`bool`): Whether actors get GPUs, where there are any.
        retry_failed (`bool`): Try those again that failed in an earlier run.
        progress (`bool`): Show a progress bar.
        stall_limit (`float`): Seconds without progress in a video after which its actor is ended, as if it had died.

    Raises:
        JobRunningError: if another job writes into `output`.
        ImportError: if Ray Data is not installed.
        RuntimeError: if the job fails as a whole, as where the model can't be loaded.
        ValueError: if `output` was begun with other settings, `num_actors` is less than 1, or nothing listens at the
            address.
    """
    if num_actors is not None and num_actors < 1:
        raise ValueError(f"`num_actors` must be at least 1, got {num_actors}.")
    try:
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise ImportError("Jobs on Ray need Ray Data: pip install 's2d-hf[ray]'.") from error
    with locked(output):
        records = ArchiveRecords(output, settings)
        records.repair()
        order = records.pending(items, retry_failed)
        if not order:
            return records.summarise()
        try:
            with _running_ray(address):
                _run_job(records, items, order, factory, num_actors, use_gpus, progress, stall_limit)
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"The Ray job failed: {error}") from error
        except KeyboardInterrupt:
            for index in order:  # the videos are not to blame
                records.withdraw(items[index].name)
            raise
        return records.summarise()


def _run_job(
    records: ArchiveRecords,
    items: Sequence[ArchiveItem],
    order: list[int],
    factory: Callable[[], Analyser],
    num_actors: int | None,
    use_gpus: bool,
    progress: bool,
    stall_limit: float,
) -> None:
    import ray.data

    resources, num_actors, num_threads = _share_resources(num_actors, use_gpus)
    stored = ray.put(list(items))  # once: rows of a dataset refer to all of it
    # One block for each video, so that a dead actor takes no finished ones along.
    dataset = ray.data.from_items([{"index": index} for index in order], override_num_blocks=len(order))
    dataset.context.enable_progress_bars = False  # they count blocks in the making; ours counts videos
    dataset.context.print_on_execution_start = False
    dataset.context.execution_no_progress_timeout_s = -1  # a long film is no standstill
    # Ray Data replaces dead actors and gives their tasks out again without limit; `analyse_item` counts.
    results = dataset.map_batches(
        VideoActor,
        fn_constructor_args=([stored], str(records.folder), factory, num_threads, stall_limit),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_actors, max_tasks_in_flight_per_actor=1),
        **resources,
    )
    failed = 0
    with tqdm(total=len(order), desc="Videos", unit="video", disable=not progress) as bar:
        for row in results.iter_rows():
            failed += row["status"] == "failed"
            if failed:
                bar.set_postfix(failed=failed, refresh=False)
            bar.update()


def _ends_where_it_stands_still(analyser: Analyser, seconds: float) -> Callable[..., VideoTimeline]:
    """Ends the process where nothing happens in a video, even if the interpreter itself stands still."""

    def start_again(_: float = 0.0) -> None:
        if seconds < threading.TIMEOUT_MAX:
            faulthandler.dump_traceback_later(seconds, exit=True)  # takes the place of the one before

    def analyse(source: str, progress: bool = True) -> VideoTimeline:
        start_again()
        try:
            return analyser(source, progress=progress, on_progress=start_again)
        finally:
            faulthandler.cancel_dump_traceback_later()

    return analyse


def _share_resources(num_actors: int | None, use_gpus: bool) -> tuple[dict[str, float], int, int]:
    """What Ray shall reserve for each actor, their number, and the CPU threads of each."""
    import ray

    available = ray.cluster_resources()
    gpus = int(available.get("GPU", 0)) if use_gpus else 0
    cores = max(1, int(available.get("CPU", 1)))
    num_actors = num_actors or gpus or cores
    resources = {"num_cpus": _share(cores, num_actors)}
    if gpus:
        resources["num_gpus"] = _share(gpus, num_actors)
    return resources, num_actors, max(1, cores // num_actors)


def _share(available: int, num_actors: int) -> float:
    """One, or the part that lets as many actors as needed share one; Ray counts in ten-thousandths."""
    return math.floor(10_000 / math.ceil(num_actors / available)) / 10_000


@contextmanager
def _running_ray(address: str | None) -> Iterator[None]:
    """Ray, as it runs already, on a cluster, or started and stopped here; without its chatter."""
    import ray

    data_logger = logging.getLogger("ray.data")
    level = data_logger.level
    started = not ray.is_initialized()
    if started:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        if address == "local":  # beside any other that runs on this machine
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            options |= {"include_dashboard": False, "object_store_memory": LOCAL_OBJECT_STORE_BYTES}
        _check_reachable(address)
        ray.init(address=address, **options)
    data_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        data_logger.setLevel(level)
        if started:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """
    Ray itself would try for minutes.

    Raises:
        ValueError: if nothing listens at the address of a cluster.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # auto, local, and what only Ray knows
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(
            f"`ray_address`: no cluster can be reached at {address} ({error}). Is Ray started there, and its port "
            "open to this machine?"
        ) from error


__all__ = ["VideoActor", "run_ray"]
