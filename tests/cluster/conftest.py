"""Fixtures of cluster tests."""

from __future__ import annotations

from tests.cluster.elsewhere import elsewhere as elsewhere
