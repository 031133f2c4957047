"""What threads did over the course of a run, in a fixed number of slots however long it lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilestream.pipelines.report_time import by_kind, task_seconds

SLOTS = 96
"""Most slots. When they are full, two become one: a run of a week takes no more memory than one of a minute."""
FIRST_SLOT_S = 0.125
"""Length of a slot at first; the tail of a run of some seconds is still a good number of them."""
TASK = "task"
"""Beside the kinds of work: how long tasks kept threads of workers, waiting included."""


class Timeline:
    """Seconds of work by kind in equal slots of time.

    A receipt says how long each step took and, by its arrival, when the last of them ended. Within a task the steps
    alternate batch by batch, so the time of each is spread evenly over the task.
    """

    def __init__(self) -> None:
        self.slot_s = FIRST_SLOT_S
        """Length of a slot."""
        self._slots: list[dict[str, float]] = []

    def add(self, end_s: float, seconds: Mapping[str, float]) -> None:
        """Take in a task.

        Parameters
        ----------
        end_s : float
            When it ended, since the start of the run.
        seconds : Mapping
            Time by step.
        """
        duration_s = task_seconds(seconds)
        if duration_s <= 0:
            return
        start_s, end_s = max(0.0, end_s - duration_s), max(end_s, 1e-6)
        while end_s > SLOTS * self.slot_s:
            self._halve()
        parts = {**by_kind(seconds), TASK: duration_s}
        first, last = int(start_s / self.slot_s), min(SLOTS - 1, int(end_s / self.slot_s))
        while len(self._slots) <= last:
            self._slots.append({})
        for number in range(first, last + 1):
            inside_s = min(end_s, (number + 1) * self.slot_s) - max(start_s, number * self.slot_s)
            slot = self._slots[number]
            for name, value in parts.items():
                slot[name] = slot.get(name, 0.0) + value * inside_s / max(end_s - start_s, 1e-6)

    def threads(self, wall_s: float) -> list[dict[str, float]]:
        """Return the mean number of threads at each kind of work, and in tasks at all (`TASK`), slot by slot.

        Parameters
        ----------
        wall_s : float
            Time from start to end of the run.

        Returns
        -------
        list of dict
            A slot each; nothing happened in an empty one.
        """
        count = min(SLOTS, int(wall_s / self.slot_s) + 1) if wall_s > 0 else 0
        slots = self._slots[:count] + [{}] * (count - len(self._slots))
        lengths = [min(self.slot_s, max(wall_s - number * self.slot_s, 1e-6)) for number in range(count)]
        return [
            {name: value / length_s for name, value in slot.items()}
            for slot, length_s in zip(slots, lengths, strict=True)
        ]

    def busy(self, start_s: float, stop_s: float) -> float:
        """Return the mean number of threads of workers that were in tasks between two times of the run.

        Parameters
        ----------
        start_s, stop_s : float
            Since its start.

        Returns
        -------
        float
            Threads.
        """
        if stop_s <= start_s:
            return 0.0
        total = 0.0
        for number, slot in enumerate(self._slots):
            low, high = number * self.slot_s, (number + 1) * self.slot_s
            inside_s = min(high, stop_s) - max(low, start_s)
            if inside_s > 0:
                total += slot.get(TASK, 0.0) * inside_s / min(self.slot_s, max(stop_s - low, 1e-9))
        return total / (stop_s - start_s)

    def idle(self, threads: int, *, beside: Sequence[str]) -> float:
        """Return the time in which threads of workers had no task while others were at some kinds of work.

        Parameters
        ----------
        threads : int
            How many there are.
        beside : sequence of str
            Kinds of work. In a slot with other work too, the idle time counts by their share.

        Returns
        -------
        float
            Seconds, summed over threads.
        """
        total = 0.0
        for slot in self._slots:
            work_s = sum(value for name, value in slot.items() if name != TASK)
            idle_s = max(0.0, threads * self.slot_s - slot.get(TASK, 0.0))
            if work_s > 0:
                total += idle_s * sum(slot.get(kind, 0.0) for kind in beside) / work_s
        return total

    def _halve(self) -> None:
        pairs = [self._slots[number : number + 2] for number in range(0, len(self._slots), 2)]
        self._slots = [
            {name: sum(slot.get(name, 0.0) for slot in pair) for name in set().union(*pair)} for pair in pairs
        ]
        self.slot_s *= 2
