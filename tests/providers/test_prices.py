from __future__ import annotations

import datetime

import pytest

from codespace_kernels.providers.prices import (
    PRICES_DATE,
    PRICES_SOURCE,
    STORAGE_DOLLARS_PER_GB_MONTH,
    dollars_per_hour,
)


@pytest.mark.parametrize(("cpus", "dollars"), [(2, 0.18), (4, 0.36), (8, 0.72), (16, 1.44), (32, 2.88)])
def test_each_machine_type_has_its_published_price_nine_cents_a_core(cpus, dollars):
    assert dollars_per_hour(cpus) == dollars == round(cpus * 0.09, 2)


@pytest.mark.parametrize("cpus", [0, 1, 3, 6, 64])
def test_no_price_is_made_up(cpus):
    assert dollars_per_hour(cpus) is None


def test_where_and_when_the_prices_were_read_is_said():
    assert PRICES_SOURCE.startswith("https://docs.github.com/")
    assert datetime.date.fromisoformat(PRICES_DATE).year >= 2026
    assert STORAGE_DOLLARS_PER_GB_MONTH == 0.07
