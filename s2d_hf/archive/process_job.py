"""An archive by one process, or by those that `accelerate launch` or `torchrun` have started."""

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

import torch.distributed
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from tqdm.auto import tqdm

from .isolation import IsolatedAnalyser
from .records import ArchiveRecords, ArchiveSummary, locked
from .sources import ArchiveItem
from .worker import Analyser, analyse_item

# A process may be at one video for long while others wait for it.
TIMEOUT = timedelta(days=30)


def run_processes(
    items: Sequence[ArchiveItem],
    output: str | os.PathLike,
    factory: Callable[[], Analyser],
    settings: Mapping[str, Any],
    retry_failed: bool = True,
    progress: bool = True,
    stall_limit: float | None = None,
) -> ArchiveSummary | None:
    """
    Analyses the videos of an archive that are not done yet: all of them where this process is alone, and its share
    where `accelerate launch` or `torchrun` has started several, which must all call this with the same arguments.

    Each process takes the next video when it has finished one, so long videos hold up no others. A broken video is
    recorded as failed; the others go on. After Ctrl-C or a kill, the same call goes on with what is left.

    Args:
        items (`Sequence[ArchiveItem]`): The videos; their names must be unique.
        output (`str` or `Path`): The folder of the records.
        factory (`Callable`): Makes the analyser; called once in each process that has something to do.
        settings (`Mapping`): What the results depend on; the folder must not have been begun with others.
        retry_failed (`bool`): Try those again that failed in an earlier run.
        progress (`bool`): Show a progress bar, in the main process.
        stall_limit (`float`, *optional*): Analyse the videos in processes beside these, and end a video after so many
            seconds without progress; see [`IsolatedAnalyser`]. If not given, they are analysed in these processes,
            which a broken decoder may crash or block.

    Returns:
        [`ArchiveSummary`] of the folder in the main process, `None` in the others.

    Raises:
        JobRunningError: if another job writes into `output`.
        RecordsError: if the records can't be written.
        RuntimeError: in a process that lists other videos than the main process.
        ValueError: if `output` was begun with other settings.
    """
    state = find_processes()
    store = _open_store(state)
    if not state.is_main_process:
        order = _wait_for_work(store, items)
        _take_videos(items, order, ArchiveRecords(output), factory, stall_limit, store, _bar(order, False))
        store.add("left", 1)
        return None
    with locked(output):
        records = ArchiveRecords(output, settings)
        records.repair()
        order = records.pending(items, retry_failed)
        store.set("work", json.dumps({"archive": _fingerprint(items), "order": order}))
        with _bar(order, progress) as bar:
            _take_videos(items, order, records, factory, stall_limit, store, bar)
            store.add("left", 1)
            while store.add("left", 0) < state.num_processes:
                _show(bar, store)
                time.sleep(0.2)
            _show(bar, store)
        return records.summarise()


def _take_videos(
    items: Sequence[ArchiveItem],
    order: Sequence[int],
    records: ArchiveRecords,
    factory: Callable[[], Analyser],
    stall_limit: float | None,
    store: torch.distributed.Store,
    bar: tqdm,
) -> None:
    """The share of this process: one video after the other, as long as there are any."""
    if stall_limit is not None:
        factory = cast(Callable[[], Analyser], functools.partial(IsolatedAnalyser, factory, stall_limit))
    analyser = None
    try:
        # `add` counts over all processes, so each number is drawn once
        while (place := store.add("taken", 1) - 1) < len(order):
            analyser = factory() if analyser is None else analyser
            status = analyse_item(items[order[place]], analyser, records)
            store.add("failed", int(status == "failed"))
            store.add("finished", 1)
            _show(bar, store)
    finally:
        if isinstance(analyser, IsolatedAnalyser):
            analyser.close()


def _bar(order: Sequence[int], progress: bool) -> tqdm:
    return tqdm(total=len(order), desc="Videos", unit="video", disable=not progress)


def find_processes() -> PartialState:
    """
    This process among those that a launcher has started; it may be the only one.

    Raises:
        RuntimeError: if others have been started that accelerate doesn't see.
    """
    # accelerate would not look for others without GPUs if not told that it is to use CPUs
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu)
    started = int(os.environ.get("WORLD_SIZE", 1))
    if state.num_processes != started:
        raise RuntimeError(
            f"{started} processes were started (WORLD_SIZE), and accelerate sees {state.num_processes}: each would do "
            "all the work. Set ACCELERATE_USE_CPU=true if they are to run without GPUs."
        )
    return state


def _open_store(state: PartialState) -> torch.distributed.Store:
    """
    Counters that all processes share: they live in the main process, and need no files and no collective operations,
    which would time out over a long video.
    """
    if state.num_processes == 1:
        return torch.distributed.HashStore()
    host = os.environ["MASTER_ADDR"]
    store = None
    port = [0]
    if state.is_main_process:
        store = torch.distributed.TCPStore(host, 0, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
        port = [store.port]
    broadcast_object_list(port)
    return store or torch.distributed.TCPStore(host, port[0], timeout=TIMEOUT, wait_for_workers=False)


def _wait_for_work(store: torch.distributed.Store, items: Sequence[ArchiveItem]) -> list[int]:
    try:
        work = json.loads(store.get("work"))
    except torch.distributed.DistError as error:  # the main process says what was wrong
        raise SystemExit(1) from error
    if work["archive"] != _fingerprint(items):
        raise RuntimeError("This process lists other videos than the main one: did the source change? Start again.")
    return work["order"]


def _fingerprint(items: Sequence[ArchiveItem]) -> str:
    return hashlib.sha256("\0".join(item.name for item in items).encode()).hexdigest()


def _show(bar: tqdm, store: torch.distributed.Store) -> None:
    if bar.disable:
        return
    bar.n = store.add("finished", 0)
    failed = store.add("failed", 0)
    if failed:
        bar.set_postfix(failed=failed, refresh=False)
    bar.refresh()


__all__ = ["find_processes", "run_processes"]
