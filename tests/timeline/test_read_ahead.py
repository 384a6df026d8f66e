"""Items made in a thread: in order, errors at their place, never many ahead, and an end of the thread."""

import threading
import time
from collections.abc import Iterator

import pytest

from s2d_hf.timeline.read_ahead import read_ahead


def is_running() -> bool:
    return any(thread.name == "read_ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_the_same_items_in_order(depth):
    assert list(read_ahead(iter(range(50)), depth)) == list(range(50))
    assert list(read_ahead(iter([None, ()]), depth)) == [None, ()]
    assert list(read_ahead(iter(()), depth)) == []
    assert not is_running()


@pytest.mark.parametrize("error", [ValueError("damaged"), KeyboardInterrupt()])
def test_an_error_comes_at_its_place(error):
    def items() -> Iterator[int]:
        yield from (0, 1, 2)
        raise error

    taken = []
    with pytest.raises(type(error)) as raised:
        for item in read_ahead(items(), 8):
            taken.append(item)
    assert raised.value is error and taken == [0, 1, 2]
    assert not is_running()


def test_few_are_made_ahead_and_in_another_thread():
    made: list[str] = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(threading.current_thread().name)
            yield i

    frames = read_ahead(items(), 3)
    assert next(frames) == 0
    deadline = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    # three that lie ready, one that waits for a place, and the one that was taken
    assert made == ["read_ahead"] * 5
    frames.close()
    assert not is_running() and len(made) <= 6


def test_it_works_while_the_caller_does():
    """Twenty items of 20 ms for a caller who takes 20 ms for each: little more than half of both together."""

    def items() -> Iterator[int]:
        for i in range(20):
            time.sleep(0.02)
            yield i

    start = time.perf_counter()
    for _ in read_ahead(items(), 4):
        time.sleep(0.02)
    assert time.perf_counter() - start < 0.7


def test_whoever_stops_early_waits_for_the_thread():
    """What the items are read from may be closed then."""
    is_open, read_while_closed = True, []

    def items() -> Iterator[int]:
        for i in range(100):
            time.sleep(0.05)
            if not is_open:
                read_while_closed.append(i)
            yield i

    with pytest.raises(RuntimeError, match="stopped"):
        frames = read_ahead(items(), 2)
        try:
            for item in frames:
                if item == 3:
                    raise RuntimeError("stopped")
        finally:
            frames.close()
            is_open = False
    time.sleep(0.15)
    assert not is_running() and not read_while_closed
