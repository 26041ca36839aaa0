"""How many steps a chunk should have, found by measurement."""

from __future__ import annotations

_SIZES = (1, 4, 16, 64)  # steps of a chunk that are tried
_CALLS = 8  # of which the fastest tells the pace of a chunk
_GAIN = 0.9  # a longer chunk must take at most so much of the time of a shorter one


class Pace:
    """What is known of the speed of chunks, by their length.

    Attributes:
        seconds: What the first call of each took, which makes it: compiles or records.
        fastest: Seconds per step of each, in its fastest call.
        calls: How often each was timed.
        spent: Seconds of running since the last one was made.
    """

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self.fastest: dict[int, float] = {}
        self.calls: dict[int, int] = {}
        self.spent = 0.0

    def size(self, left: int) -> int:
        """Steps of the next chunk: of those that fit, the fastest, or one that is due to be tried."""
        untried = next((size for size in self.seconds if size <= left and not self._is_tried(size)), None)
        if untried is not None:
            return untried
        known = [size for size in self.fastest if size <= left]
        if not known:
            return 1
        following = self._following()
        if following is not None and following <= left:
            longest = max(self.fastest)
            expected = self.seconds[longest] * following / longest  # making one takes time by the step
            if self.spent > expected:
                return following
        return min(known, key=self.fastest.__getitem__)

    def note(self, size: int, seconds: float) -> None:
        """Note how long a chunk took. The first call of each makes it."""
        if size not in self.seconds:
            self.seconds[size] = seconds
            self.spent = 0.0
            return
        self.spent += seconds
        pace = seconds / size
        self.fastest[size] = min(pace, self.fastest.get(size, pace))
        self.calls[size] = self.calls.get(size, 0) + 1

    def settled(self) -> bool:
        """Whether nothing is left to be measured."""
        return bool(self.fastest) and all(map(self._is_tried, self.seconds)) and self._following() is None

    def _is_tried(self, size: int) -> bool:
        return self.calls.get(size, 0) >= _CALLS

    def _following(self) -> int | None:
        """The next longer chunk, if the longest one so far has gained on the one before it."""
        longest = max(self.fastest)
        before = max((size for size in self.fastest if size < longest), default=None)
        if before is not None and self.fastest[longest] >= _GAIN * self.fastest[before]:
            return None
        return next((size for size in _SIZES if size > longest), None)
