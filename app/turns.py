"""Whose turn is it? That of whoever would be done first if all were served at once."""

from bisect import bisect_left, insort


class Turns:
    """A processor that serves everybody at the same time, in equal shares; it is reckoned with, never run.

    To serve one after the other, in the order in which it would be done with them, is the Fair Sojourn Protocol
    (Friedman and Henderson, 2003): nobody is done later than by equal shares, and most are done earlier. Something
    small passes something huge, what is alike goes in the order in which it came, and nothing waits for ever.
    """

    def __init__(self) -> None:
        self._served = 0.0  # work that each of those present has been given since the beginning
        self._ends: list[float] = []  # of those present: how much each will have been given when it is done; sorted

    def of(self, size: int) -> float:
        """The turn that something of a size would have now; what has a lower one goes first."""
        return self._served + size

    def take(self, size: int) -> float:
        """The turn of something of a size that has just come."""
        turn = self.of(size)
        insort(self._ends, turn)
        return turn

    def give_up(self, turn: float) -> None:
        """Its owner leaves unserved, and gets no share any more, if it still had one."""
        at = bisect_left(self._ends, turn)
        if at < len(self._ends) and self._ends[at] == turn:
            del self._ends[at]

    def work(self, size: float) -> None:
        """So much has been done, for whomever."""
        while self._ends:
            rest = (self._ends[0] - self._served) * len(self._ends)  # until the next of them is done
            if size < rest:
                self._served += size / len(self._ends)
                return
            size -= rest
            self._served = self._ends.pop(0)
