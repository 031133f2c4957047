"""The command line with a codec that takes its time, for runs that are killed in the middle."""

import sys
import time

from tests.codecs.exactfield import NAME, ExactField
from tilestream.cli import app
from tilestream.registry import CODECS

FIT_S = 0.15
PATH = "tests.chaos.slowfields:SlowField"


class SlowField(ExactField):
    """Waits in each fit."""

    def fit(self, source, **stop):
        time.sleep(FIT_S)
        return super().fit(source, **stop)


if __name__ == "__main__":
    CODECS[NAME] = PATH
    app(sys.argv[1:])
