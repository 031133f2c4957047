"""What `tilestream train scorer` prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilestream.cli.lines import print_line
from tilestream.cli.words import counted, duration

if TYPE_CHECKING:
    from tilestream.pipelines.scorer_examples import ScorerData
    from tilestream.pipelines.train_scorer import ScorerOutcome


@contextmanager
def told_of_scorer(*, quiet: bool, epochs: int) -> Iterator[Any]:
    """Yield a listener that prints what is trained on, and shows the epoch while it lasts."""
    from tilestream.pipelines.scorer_examples import ScorerData

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with errors.status("reading") as status:

        def hear(event: Any) -> None:
            if not isinstance(event, ScorerData):
                status.update(
                    f"epoch {event.epoch} of {epochs}: loss {event.train_loss:.3f}, held out {event.val_loss:.3f}"
                )
            elif not quiet:
                print_examples(console, event)

        yield hear


def print_examples(console: Console, data: ScorerData) -> None:
    """Print what is trained on.

    Parameters
    ----------
    console : Console
        Where to print.
    data : ScorerData
        The examples.
    """
    counts = ", ".join(f"{name} {count:,}" for name, count in data.counts.items())
    if data.tiles is None:
        print_line(console, f"{counted(len(data.names), 'slide')} ({counts}); `{data.about['encoder']}`")
    else:
        seen = "x".join(map(str, data.tiles.shape[1:]))
        print_line(
            console,
            f"{counted(len(data.tiles), 'tile')} ({counts}) of {counted(len(data.names), 'image')}; {seen} values each",
        )
    for note in data.notes:
        print_line(console, ("note ", "yellow"), note)


def print_scorer(outcome: ScorerOutcome, *, seconds: float) -> None:
    """Print how good it is, where it lies, and how to use it.

    Parameters
    ----------
    outcome : ScorerOutcome
        What `run_scorer` returned.
    seconds : float
        Wall time.
    """
    console, document = Console(highlight=False), outcome.document
    best = document["best"]
    known = f"loss {best['val_loss']:.3f} on what was held out, epoch {best['epoch']} of {document['epochs']}"
    held = document.get("held_out")
    if held is not None and held["auc"] is not None:
        recall = held["recall"]["0.1"]
        known = f"AUC {held['auc']:.3f} on {counted(held['tiles'], 'tile')} held out, {recall:.0%} of what is marked "
        known += f"among the best 10 %; epoch {best['epoch']} of {document['epochs']}"
    path = outcome.out / "scorer.safetensors"
    print_line(console, f"{known}; {duration(seconds)}; scorer: {path}")
    print_line(console, f"for `embed`, `plan` and `relevance`: --relevance scorer:{path}")
