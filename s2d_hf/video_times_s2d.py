"""A player's time for the frames of a file, whose own times may jump, repeat or start again."""

import av

# Seconds. A longer stretch without a frame is a cut and not a frame that lasts.
LONGEST_FRAME = 2.0
# Times that jump back by more than the first, or ahead by more than the second, begin a new recording, which goes on
# from the last one. Transport streams restart at any time, so the third counts there.
JUMP_BACK, JUMP_AHEAD, JUMP_AHEAD_IN_TRANSPORT = 0.5, 6 * 3600.0, 10.0


class PlayerClock:
    """Turns the times of a file's frames into those of a player, in seconds; see [`VideoFile`]."""

    def __init__(self, offsets: list[float], jump_ahead: float, step: float):
        self.offsets = offsets
        self.jump_ahead = jump_ahead
        self.step = min(step, LONGEST_FRAME)  # how long the latest frame lasts
        self.latest: float | None = None

    def time_of(self, frame: av.VideoFrame, num_restarts: int) -> tuple[float, bool]:
        """
        The next frame's time, and whether it follows a gap or another recording.

        Args:
            num_restarts (`int`): How often the times of the packets, of which the decoder may be behind by some, have
                started again. A single frame at a wrong time, as where packets are lost, is no other recording.
        """
        latest, step = self.latest, self.step
        lasts = float((frame.duration or 0) * (frame.time_base or 0))
        if 0 < lasts <= LONGEST_FRAME:
            self.step = lasts
        if latest is None:
            self.latest = 0.0 if frame.time is None else frame.time + self.offsets[-1]
            return self.latest, False
        self.latest = latest + step if frame.time is None else frame.time + self.offsets[-1]
        ahead = self.latest - latest
        is_jump = not -JUMP_BACK <= ahead <= self.jump_ahead
        if is_jump and num_restarts >= len(self.offsets):
            self.offsets.append(self.offsets[-1] + step - ahead)
            self.latest = latest + step
            return self.latest, True
        if is_jump or ahead <= 0:  # no two frames at once, and none is lost
            self.latest = latest + 0.001
        return self.latest, self.latest - latest > LONGEST_FRAME


class Restarts:
    """Counts how often the times of a stream's packets start again."""

    def __init__(self, jump_ahead: float):
        self.jump_ahead = jump_ahead
        self.count = 0
        self.latest: float | None = None

    def count_up_to(self, packet: av.Packet) -> int:
        if packet.dts is not None:
            now = float(packet.dts * packet.time_base)
            if self.latest is not None and not -JUMP_BACK <= now - self.latest <= self.jump_ahead:
                self.count += 1
            self.latest = now
        return self.count


__all__ = ["JUMP_AHEAD", "JUMP_AHEAD_IN_TRANSPORT", "LONGEST_FRAME", "PlayerClock", "Restarts"]
