"""``run`` of a suite that includes others."""

import pytest

from reformer_bench.cli.main import main


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--suite", "paper", "--dry-run", "--no-predict", *arguments])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_options_change_every_part(capsys):
    code, out, _ = run(capsys, "--device", "cpu", "--seq-len", "1K")
    assert code == 0
    for variant in ("memory-efficient", "rounds-16", "reversible-16", "small-20", "swapped-8"):
        assert variant in out
    assert "2K" not in out


@pytest.mark.parametrize("option", [("--variants", "full"), ("--device", "none")])
def test_options_that_need_one_suite_say_so(capsys, option):
    code, _, err = run(capsys, *option)
    assert code == 2
    assert "includes others" in err
    assert "attention-scaling" in err
    assert err.count("\n") == 1
