"""What every test starts from."""

import pytest


@pytest.fixture(autouse=True)
def _no_terminal_of_the_caller(monkeypatch):
    """Widths and colours are those a test asks for: pytest-xdist sets COLUMNS in its workers."""
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
