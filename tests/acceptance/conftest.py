"""The platform that the tests share which neither end it nor harm it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.platform_process import PlatformProcess, platform_process


@pytest.fixture(scope="session")
def running_platform() -> Iterator[PlatformProcess]:
    with platform_process() as platform:
        yield platform
