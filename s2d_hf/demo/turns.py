"""One analysis at a time, and none for ever."""

import ipaddress
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from transformers.utils import logging

from ..video_limits_s2d import limit_of
from .limits import PageLimits, span
from .visits import Visits

logger = logging.get_logger(__name__)

MOST_WAITING = 20
MOST_OF_ONE_ADDRESS = 3  # which a family or a class may share; who is on the same machine is not counted
MOST_HUNG = 3
LEFT_SECONDS = 5.0  # a connection may break and be made anew
_LOOK_SECONDS = 0.2

Outcome = TypeVar("Outcome")
Report = Callable[[float, str], Any]


class AnalysisStopped(Exception):
    """
    Raised where progress is reported, to end an analysis that nobody waits for any more, and where none is begun.

    Args:
        title (`str`), text (`str`): What the visitor is told.
    """

    def __init__(self, title: str, text: str = ""):
        super().__init__(title)
        self.title = title
        self.text = text


class Turn:
    """A visitor's place among those who wait."""

    def __init__(self, session: str, address: str | None):
        self.session = session
        self.address = address
        self.progress: tuple[float, str] | None = None
        self._end: AnalysisStopped | None = None
        self.ended_at = 0.0

    @property
    def is_ended(self) -> bool:
        """Whether it was ended before it was done."""
        return self._end is not None

    def end(self, title: str, text: str = "") -> None:
        """Lets the analysis end as soon as it reports; the first reason counts."""
        if self._end is None:
            self.ended_at = time.monotonic()
            self._end = AnalysisStopped(title, text)

    def check(self) -> None:
        """
        Raises:
            AnalysisStopped: if the turn was ended.
        """
        if self._end is not None:
            raise self._end

    def report(self, share: float, text: str) -> None:
        """Takes down what is done; raises [`AnalysisStopped`] if nobody wants the rest."""
        self.check()
        self.progress = (share, text)


class Turns:
    """
    Lets visitors wait for one another. Each analysis has a thread of its own, which its report ends; a thread that
    reports no more cannot be ended in Python, and is left behind.

    Args:
        limits ([`PageLimits`]): How long one may keep the others waiting.
        visits ([`Visits`], *optional*): Who is there. If not given, all stay.
    """

    def __init__(self, limits: PageLimits, visits: Visits | None = None):
        self.limits = limits
        self.visits = visits
        self._turns: list[Turn] = []  # the first one's is now
        self._hung: list[threading.Thread] = []
        self._changed = threading.Condition()

    def stop(self, session: str | None) -> None:
        """Ends the analysis of a visitor who has asked for it or left."""
        with self._changed:
            for turn in self._turns:
                if turn.session == session:
                    turn.end("Stopped")

    def run(self, session: str, address: str | None, work: Callable[[Report], Outcome], tell: Report) -> Outcome:
        """
        Waits for the visitor's turn and for what `work` returns.

        Args:
            session (`str`): The visit. It may have one analysis, running or waiting.
            address (`str`, *optional*): Of the visitor's machine.
            work (`Callable[[Report], Outcome]`): Is given what it has to report to, from time to time.
            tell (`Report`): Is told what is reported, in the thread that waits.

        Raises:
            AnalysisStopped: if the turn was ended, or none is given.
        """
        turn = self._enter(session, address)
        try:
            self._wait(turn, tell)
            return self._work(turn, work, tell)
        finally:
            with self._changed:
                self._turns.remove(turn)
                self._changed.notify_all()

    def _enter(self, session: str, address: str | None) -> Turn:
        turn = Turn(session, None if address is None or _is_this_machine(address) else address)
        with self._changed:
            if any(other.session == session for other in self._turns):
                raise AnalysisStopped("One video at a time", "Another one of yours is being analysed, or waits.")
            same = sum(other.address == turn.address for other in self._turns if turn.address is not None)
            if same >= MOST_OF_ONE_ADDRESS or len(self._turns) > MOST_WAITING:
                raise AnalysisStopped("Too many are waiting", "Try again in a few minutes.")
            self._turns.append(turn)
        return turn

    def _wait(self, turn: Turn, tell: Report) -> None:
        while True:
            with self._changed:
                before = self._turns.index(turn)
                if before == 0:
                    break
                self._changed.wait(_LOOK_SECONDS)
            tell(0.0, "Waiting for the one before" if before == 1 else f"Waiting for {before} others")
            self._look_after(turn)
            turn.check()
        self._hung = [thread for thread in self._hung if thread.is_alive()]
        if len(self._hung) >= MOST_HUNG:
            logger.error(f"{MOST_HUNG} analyses hang, and no more are begun: start the page anew.")
            raise AnalysisStopped("This page is stuck", "Whoever runs it has to start it anew.")

    def _work(self, turn: Turn, work: Callable[[Report], Outcome], tell: Report) -> Outcome:
        outcomes: list[Outcome] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                outcomes.append(work(turn.report))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="analysis", daemon=True)
        deadline = time.monotonic() + self.limits.max_wait
        told = None
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_LOOK_SECONDS)
                if turn.progress not in (None, told) and not turn.is_ended:
                    told = turn.progress
                    tell(*told)
                self._look_after(turn)
                if time.monotonic() > deadline:
                    turn.end(
                        "This took too long",
                        f"An analysis may take {span(self.limits.max_wait)}, as others may be waiting. Try a shorter "
                        "video, or one with fewer pixels.",
                    )
                if turn.is_ended and time.monotonic() - turn.ended_at > limit_of("S2D_STALL_SECONDS"):
                    self._hung.append(thread)
                    logger.error(
                        "An analysis that was ended goes on, or hangs in a decoder. The next one begins beside it."
                    )
                    turn.check()
        finally:
            turn.end("Stopped")  # where nobody waits for it any more
        if errors:
            raise errors[0]
        return outcomes[0]

    def _look_after(self, turn: Turn) -> None:
        if self.visits is not None and not self.visits.is_there(turn.session, LEFT_SECONDS):
            turn.end("Stopped")


def _is_this_machine(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
