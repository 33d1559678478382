# SPDX-License-Identifier: Apache-2.0
"""What all tests share. Property tests draw the same examples on every run and are not timed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("tersor", derandomize=True, deadline=None)
settings.load_profile("tersor")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a build works, which is to be empty afterwards; forms take the time that they are given."""
    from tests.support.building import steady, work_in

    steady(monkeypatch)
    return work_in(tmp_path / "work", monkeypatch)
