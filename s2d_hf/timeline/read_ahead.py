"""Frames that are decoded in a thread while the one that takes them is busy."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """
    The same items in the same order, of which up to `depth` lie ready while the caller is busy with earlier ones.

    A thread makes them; an error that ends them is raised here, at its place. When the caller stops early, the thread
    ends after the item that it is at, which is waited for.

    Args:
        items (`Iterator`): Which no one else may use meanwhile.
        depth (`int`): At least 1.
    """
    # what the thread hands over, and at last the error that ended it, or `None`
    ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
    is_wanted = True

    def read() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                ready.put((item,))
                if not is_wanted:
                    return
        except BaseException as raised:
            error = raised
        ready.put(error)

    thread = threading.Thread(target=read, name="read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            value = ready.get()
            if isinstance(value, tuple):
                yield value[0]
            elif value is None:
                return
            else:
                raise value
    finally:
        is_wanted = False
        while thread.is_alive():
            try:  # it may wait for a place
                ready.get(timeout=0.05)
            except queue.Empty:
                continue


__all__ = ["read_ahead"]
