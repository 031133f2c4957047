"""Errors that a user can cause, each saying what, what was got, what was expected and what to do."""

from __future__ import annotations

from typing import Self


class TilestreamError(Exception):
    """Root of all errors raised on purpose."""

    @classmethod
    def of(cls, what: str, *, got: object, expected: str, do: str) -> Self:
        """Return the error with its four parts in the order in which a reader needs them.

        Parameters
        ----------
        what : str
            The thing that failed, with its name in backticks.
        got : object
            What was found.
        expected : str
            What would have been right.
        do : str
            The remedy, as an instruction.

        Returns
        -------
        TilestreamError
            An instance of the class it is called on.
        """
        return cls(f"{what}: got {got}, expected {expected}. {do}")


class SourceError(TilestreamError, OSError):
    """An image that cannot be opened or read at all."""

    def __str__(self) -> str:
        # OSError formats two arguments as errno and text; ours always has one
        return str(self.args[0]) if self.args else ""


class DamagedError(TilestreamError, ValueError):
    """Stored bytes that cannot become pixels; the message is the reason that reports print."""


class ConfigError(TilestreamError, ValueError):
    """An argument, option, manifest or plan that cannot be met."""


class BudgetError(TilestreamError, MemoryError):
    """A plan whose projected bytes exceed what it may use."""


class StageError(TilestreamError, RuntimeError):
    """A stage that failed or broke its contract."""


class OutputError(TilestreamError, OSError):
    """An output place that cannot take, or does not match, what is to be written."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
