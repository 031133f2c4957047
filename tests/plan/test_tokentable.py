"""The table of tokens says where they lie."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from tests.plan.build import blank
from tilestream.plan.tokens import plan_tokens
from tilestream.plan.tokentable import COLUMNS, token_boxes, tokens_csv
from tilestream.types import ScoreMap, Shape


@pytest.fixture
def plan():
    area = Shape(y=300, x=500)
    values = np.zeros((30, 50), np.float32)
    values[:10, :10] = 1
    scores = ScoreMap(name="s", values=values, valid=values >= 0, cell_yx=(10.0, 10.0), shape=area)
    return plan_tokens(blank(area), budget=30, relevance=scores, patch_px=16)


def test_the_table_has_a_row_a_token(plan):
    rows = list(csv.DictReader(tokens_csv(plan)))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(plan)
    boxes = token_boxes(plan)
    for number, row in enumerate(rows):
        assert int(row["row"]) == number
        assert [float(row["y"]), float(row["x"])] == boxes[number, :2].tolist()
        assert float(row["width"]) == plan.patch_px * 2 ** int(row["level"])


def test_no_token_is_a_table_of_a_head(plan):
    empty = replace(plan, tokens=plan.tokens[:0], is_leaf=plan.is_leaf[:0], scores=plan.scores[:0])
    assert list(tokens_csv(empty)) == [",".join(COLUMNS) + "\n"]
