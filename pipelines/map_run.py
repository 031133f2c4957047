"""Maps of a cohort: any stage `[n, c, y, x] -> [n, k, y, x]` over whole images, each into a pyramid, and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distributed import Client

from tilestream.cluster.client import open_client
from tilestream.codecs.place import Place
from tilestream.pipelines.check import no_inputs
from tilestream.pipelines.cohort import Cohort, Entry
from tilestream.pipelines.embed import RunOutcome, heard, placed, require_one_for_file, require_writable
from tilestream.pipelines.encoder import encoder_spec, require_output
from tilestream.pipelines.export import Listener, export_config, run_export
from tilestream.pipelines.map_image import MapJob
from tilestream.pipelines.report import write_report
from tilestream.pipelines.report_rows import InputRow, RunFacts
from tilestream.pipelines.tally import Tally
from tilestream.stream.engine import Engine, Event
from tilestream.stream.work import make_stage
