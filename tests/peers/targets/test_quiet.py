"""What transformers says of configurations, and what a command keeps of it."""

import pytest

from reformer_bench.peers.targets.quiet import errors_only

logging = pytest.importorskip("transformers.utils.logging")


@pytest.fixture(autouse=True)
def as_set_by_nobody(monkeypatch):
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    yield
    logging.set_verbosity(before)


def test_only_errors_are_said_inside_and_all_again_after_a_failure():
    with errors_only():
        assert logging.get_verbosity() == logging.ERROR
    assert logging.get_verbosity() == logging.WARNING
    with pytest.raises(KeyError), errors_only():
        raise KeyError
    assert logging.get_verbosity() == logging.WARNING


def test_what_a_user_asked_for_is_kept(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    with errors_only():
        assert logging.get_verbosity() == logging.WARNING
