"""The small slide of the fault tests, and what undisturbed runs make of it."""

from tests.pipelines.faults.conftest import client as client
from tests.pipelines.faults.conftest import processes as processes
from tests.pipelines.faults.conftest import slide as slide
from tests.pipelines.faults.conftest import whole as whole
