"""What holds a run up and what would help, told from measured time alone.

All rules speak of one quantity, the time that the threads of the workers had: wall time times threads. A part of it
went into each kind of work, a part into waiting for tiles inside of tasks, a part into no task at all. The rule whose
part is the largest is the bottleneck; a kind of work is one only where it stands out from the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tilestream.metrics import stage_of
from tilestream.pipelines.figures import TAIL, Figures
from tilestream.pipelines.report_time import AHEAD, WAIT, by_kind, kind_of, task_seconds, wait_share, work_seconds

STANDS_OUT = 0.5
"""A kind of work that takes this share of all work stands out by itself,"""
STANDS_OUT_NEXT = 0.35
"""or this one where it is also `TIMES_NEXT` of the next."""
TIMES_NEXT = 1.5
WAITS = 0.3
"""Share of the time of tasks, spent in waiting for tiles, from which on it is told."""
IDLES = 0.25
"""Share of the threads' time, spent in no task, from which on it is told; likewise of the last part of a run."""
SHORT_S = 0.1
"""A super-tile that takes less costs as much to hand out and to record as to compute."""
FEW = 4
"""Super-tiles a thread, of those made, below which their number explains idle threads at the end."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What of a run decides which knob there is."""

    command: str = "embed"
    """`embed`, `map`, `ingest` or `compress`."""
    remote: str = ""
    """Scheme of remote inputs, such as `s3`; empty where all are local."""
    has_disk_cache: bool = False
    """Whether remote reads are kept on a disk already."""
    halo_px: int = 0
    """Overlap around each tile."""
    looks_for_tissue: bool = False
    """Whether planning looks for tissue."""
    is_remote_out: bool = False
    """Whether the results go to object storage."""
    has_steps: bool = True
    """Whether `compress` fits its tiles by steps."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that takes time."""

    name: str
    """A kind of work, `wait`, `idle`, `tail`, or `none` where nothing stands out."""
    share: float
    """Of what `text` says it is a share of, 0 to 1."""
    weight: float
    """Share of the time that the threads of the workers had."""
    text: str
    """What was measured."""
    do: str = ""
    """The knob that would help; empty where none is known."""

    @property
    def sentence(self) -> str:
        """Return both in one line."""
        return f"{self.text}: {self.do}" if self.do else self.text


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The quantities that rules look at."""

    wall_s: float
    """From the start of the run to its end."""
    threads: int
    """Threads of the workers; 0 = not known, then nothing is said of idle ones."""
    threads_s: float | None = None
    """Time that they had, where their number has changed; None = they were there all along."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by step, summed over threads."""
    supertiles: int = 0
    """Super-tiles made."""
    images: int = 0
    """Images that were worked on; 0 = not known, or one."""
    unit_s: float = 0.0
    """How long a super-tile kept a thread, on average."""
    ends_idle_s: float = 0.0
    """Time in which threads had no task while others opened or finished images."""
    tail_busy: float = 0.0
    """Mean number of threads in tasks in the last part of the run."""

    @classmethod
    def of(cls, figures: Figures) -> Measured:
        """Return what the figures of a run say."""
        return cls(
            wall_s=figures.wall_s,
            threads=figures.threads,
            threads_s=figures.threads_s,
            seconds=figures.seconds,
            supertiles=figures.supertiles,
            images=figures.ended - figures.skipped,
            unit_s=figures.unit_s,
            ends_idle_s=figures.ends_idle_s,
            tail_busy=figures.tail_busy,
        )

    @property
    def task_s(self) -> float:
        """Return how long tasks kept threads."""
        return task_seconds(self.seconds)

    @property
    def capacity_s(self) -> float:
        """Return the time that the threads had; what tasks took where that is not known."""
        had_s = self.wall_s * self.threads if self.threads_s is None else self.threads_s
        return max(had_s, self.task_s)

    @property
    def idle_s(self) -> float:
        """Return the time in which threads had no task."""
        return self.capacity_s - self.task_s


def findings(measured: Measured, setting: Setting) -> tuple[Finding, ...]:
    """Return what takes time, the bottleneck first.

    Parameters
    ----------
    measured : Measured
        Quantities of a run, or of one image (`threads` 0).
    setting : Setting
        Options and places.

    Returns
    -------
    tuple of Finding
        One named `none` where nothing stands out; empty where nothing was done.
    """
    if measured.task_s <= 0:
        return ()
    rules = (_idle(measured, setting), _waiting(measured, setting), _work(measured, setting))
    found = sorted((rule for rule in rules if rule is not None), key=lambda finding: -finding.weight)
    return tuple(found) or (_nothing(measured),)


def _idle(measured: Measured, setting: Setting) -> Finding | None:
    """Tell of threads that had no task: towards the end of the run, or all along."""
    threads, idle_s = measured.threads, measured.idle_s
    if not threads or measured.wall_s <= 0:
        return None
    weight = idle_s / measured.capacity_s
    tail = max(0.0, threads - measured.tail_busy)
    tail_s = tail * TAIL * measured.wall_s
    if threads > 1 and tail >= max(0.5, IDLES * threads) and tail_s >= idle_s / 2 and weight >= IDLES / 2:
        text = f"{_count(tail)} of {threads} threads had nothing to do in the last {TAIL:.0%} of the run"
        do = _idle_knob(measured, setting) or "more images a run, or fewer workers"
        return Finding(name="tail", share=tail / threads, weight=weight, text=_percent(text), do=do)
    if weight < IDLES:
        return None
    text = f"{_count(threads * weight)} of {threads} threads had nothing to do on average"
    return Finding(name="idle", share=weight, weight=weight, text=text, do=_idle_knob(measured, setting))


def _idle_knob(measured: Measured, setting: Setting) -> str:
    """Return what would keep threads busy that have nothing to do."""
    if measured.ends_idle_s > measured.idle_s / 2:
        return "mostly while one of them opened or finished an image, more images a run would overlap"
    if setting.command in ("ingest", "compress"):  # their units are shards and tiles, whose size is not to be chosen
        return ""
    if measured.supertiles and measured.unit_s < SHORT_S:
        return f"a super-tile takes {1000 * measured.unit_s:.0f} ms, a larger --super-tile is handed out less often"
    if measured.supertiles < FEW * measured.threads:
        return f"{_few(measured)}, a smaller --super-tile makes more"
    return ""


def _few(measured: Measured) -> str:
    made = "1 super-tile is" if measured.supertiles == 1 else f"{measured.supertiles:,} super-tiles are"
    return f"{made} few for {measured.threads} threads"


def _waiting(measured: Measured, setting: Setting) -> Finding | None:
    """Tell of stages that wait for tiles, and of the step of the supply that takes most of its time."""
    share = wait_share(measured.seconds)
    if share < WAITS:
        return None
    ahead = {step: measured.seconds.get(step, 0.0) for step in AHEAD}
    slowest = max(ahead, key=lambda step: ahead[step])
    who = "the device" if measured.seconds.get("transfer") else "the stage"
    part = ahead[slowest] / max(sum(ahead.values()), 1e-9)
    text = f"{who} waits for tiles {share:.0%} of the time, and {part:.0%} of what makes them is {_NAMES[slowest]}"
    return Finding(
        name=WAIT,
        share=share,
        weight=measured.seconds[WAIT] / measured.capacity_s,
        text=_percent(text),
        do=_knob(slowest, measured, setting),
    )


def _work(measured: Measured, setting: Setting) -> Finding | None:
    """Tell of the kind of work that takes most of the time, where it stands out."""
    seconds, total = measured.seconds, work_seconds(measured.seconds)
    if seconds.get(WAIT):
        # Tiles are made ahead by threads of their own: as long as they are there in time, what holds the run up is in
        # the thread that feeds the stages.
        seconds, total = {step: value for step, value in seconds.items() if step not in AHEAD}, measured.task_s
    ordered = sorted(by_kind(seconds).items(), key=lambda item: -item[1])
    if not ordered or total <= 0:
        return None
    kind, value = ordered[0]
    share, following = value / total, ordered[1][1] / total if len(ordered) > 1 else 0.0
    if share < STANDS_OUT and (share < STANDS_OUT_NEXT or share < TIMES_NEXT * following):
        return None
    name = _NAMES[kind]
    if kind == "read" and setting.remote:
        name = f"reading from {setting.remote}"
    elif kind == "compute":
        name = f"computing (`{stage_of(max(_stages(seconds), key=lambda stage: seconds[stage]))}`)"
    text = f"{name} takes {share:.0%} of the time"
    if measured.threads:
        text += f" on {_threads(measured.threads)}"
    weight = min(1.0, value / max(measured.capacity_s, total))
    return Finding(name=kind, share=share, weight=weight, text=_percent(text), do=_knob(kind, measured, setting))


def _nothing(measured: Measured) -> Finding:
    parts = sorted(by_kind(measured.seconds).items(), key=lambda item: -item[1])[:3]
    total = sum(by_kind(measured.seconds).values())
    words = ", ".join(f"{_NAMES[kind]} {value / total:.0%}" for kind, value in parts)
    share = parts[0][1] / total
    return Finding(name="none", share=share, weight=share, text=_percent(f"nothing stands out: {words}"))


_NAMES = {
    "read": "reading",
    "decode": "decoding",
    "gather": "putting tiles together",
    "transfer": "moving tiles to the device and back",
    "compute": "computing",
    "encode": "compressing",
    "write": "writing",
    "plan": "opening and planning",
    "finish": "making the final stores",
}


def name_of(kind: str) -> str:
    """Return a kind of work as a sentence says it."""
    return _NAMES[kind]


def _stages(seconds: Mapping[str, float]) -> list[str]:
    return [step for step in seconds if kind_of(step) == "compute"]


def _knob(kind: str, measured: Measured, setting: Setting) -> str:
    """Return what would help where a kind of work takes most of the time."""
    more = "more cores, or --cluster with more workers"
    if kind == "read":
        if not setting.remote:
            return "a faster disk, or a copy on a local one"
        if setting.command == "ingest":  # every tile is read once
            return "more threads read more at once, or run nearer to the source"
        if setting.has_disk_cache:
            return "the disk cache helps from the second run on; more threads read more at once"
        return "--disk-cache keeps what was read for the next run; more threads read more at once"
    if kind == "gather":
        overlap = "a smaller --halo, or " if setting.halo_px else ""
        resampling = f"{overlap}an --mpp at which a level is stored, so that nothing is resampled"
        return resampling if setting.command != "ingest" else more
    if kind == "write":
        return "--out nearer to the workers" if setting.is_remote_out else "--out on a faster disk"
    device = "a larger --batch, or a faster device" if measured.seconds.get("transfer") else more
    if setting.command == "compress":
        device = f"fewer --steps, {more}" if setting.has_steps else more
    tissue = "--where all looks for no tissue" if setting.looks_for_tissue else ""
    is_many = measured.images > measured.threads > 0
    return {
        "decode": more,
        "transfer": "a larger --batch",
        "compute": device,
        "encode": more,
        "plan": "more cores, since each image is opened by one thread" if is_many else tissue,
        "finish": "more cores, since each image is finished by one thread" if is_many else "",
    }[kind]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _count(value: float) -> str:
    """Return a number of threads, with a digit after the point where it is small and not whole."""
    return f"{value:.0f}" if value >= 10 or abs(value - round(value)) < 0.05 else f"{value:.1f}"


def _percent(text: str) -> str:
    return text.replace("%", " %")
