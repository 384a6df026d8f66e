"""How messages write numbers, lists and names."""

import pytest

from s2d_hf.texts_s2d import clock, count_of, listed, shorten, visible


@pytest.mark.parametrize(
    ("items", "between", "text"),
    [
        ([], ", ", ""),
        (["a"], ", ", "a"),
        (["a", "b"], ", ", "a, b"),
        (iter("abcd"), ", ", "a, b and 2 more"),
        ([1, 2, 3], "\n  ", "1\n  2\n  and 1 more"),
    ],
)
def test_lists_say_how_many_they_leave_out(items, between, text):
    assert listed(items, 2, between) == text


@pytest.mark.parametrize(("keep", "text"), [("start", "0123…"), ("end", "…6789"), ("ends", "0…89")])
def test_long_texts_are_cut_where_they_may_be(keep, text):
    assert shorten("0123456789", 4, keep) == text
    assert shorten("0123", 4, keep) == "0123"


def test_numbers_and_times():
    assert [count_of(n, "video") for n in (0, 1, 2, 1200)] == ["0 videos", "1 video", "2 videos", "1,200 videos"]
    assert count_of(2, "packet or frame", "packets or frames") == "2 packets or frames"
    assert [clock(t) for t in (0, 59.96, 62.5, 3602.5)] == ["0:00.0", "1:00.0", "1:02.5", "1:00:02.5"]


def test_nothing_moves_the_cursor():
    assert visible("a\x1b[2Jb\r\nc\x9b") == "a\\x1b[2Jb\\x0d\nc\\x9b"
