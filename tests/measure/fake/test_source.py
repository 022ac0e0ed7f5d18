"""What a statement does with a value that it reads, from where in the statement it is read."""

import sys

import pytest

from reformer_bench.measure.fake.source import Use, use_of_value


class Value:
    """Says of each reading what becomes of it."""

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.truth = True

    def _read(self, answer):
        self.uses.append(use_of_value(sys._getframe(2)))
        return answer

    def __bool__(self) -> bool:
        return self._read(self.truth)

    def item(self) -> float:
        return self._read(0.5)


def asserted(x) -> None:
    assert x


def asserted_not(x) -> None:
    x.truth = False
    assert not x


def asserted_with_another(x) -> None:
    other = True
    assert other and x, "expected both"  # noqa: PT018


def asserted_to_be_less(x) -> None:
    assert x.item() < 1


def asserted_to_be_more(x) -> None:
    assert x.item() >= 0


def asserted_to_be_equal(x) -> None:
    assert x.item() == 0.5


def raised(x) -> None:
    x.truth = False
    if x:
        raise ValueError


def raised_unless(x) -> None:
    if not x:
        raise ValueError


def raised_otherwise(x) -> int:
    if bool(x):
        return 1
    else:
        raise ValueError


def raised_of_a_number(x) -> None:
    if x.item() > 1:
        raise ValueError


def decided(x) -> int:
    return 1 if x else 2


def decided_in_a_statement(x) -> int:
    if x:
        return 1
    return 2


def looped(x) -> None:
    x.truth = False
    while x:
        pass


def broken_off(x) -> None:
    while True:
        if x:
            break


def broken_off_a_list(x) -> None:
    for _ in range(3):
        if x:
            break


def sized(x) -> int:
    return int(x.item() * 3)


def counted(x) -> list[int]:
    return list(range(round(x.item())))


def logged(x) -> float:
    return 2 * x.item()


@pytest.mark.parametrize(
    ("read", "use"),
    [
        (asserted, Use("raises", True)),
        (asserted_not, Use("raises", False)),
        (asserted_with_another, Use("raises", True)),
        (raised, Use("raises", False)),
        (raised_unless, Use("raises", True)),
        (raised_otherwise, Use("raises", True)),
        (raised_of_a_number, Use("raises", None, 0)),
        (decided, Use("decides")),
        (decided_in_a_statement, Use("decides")),
        (looped, Use("loops", False)),
        (broken_off, Use("loops", True)),
        (broken_off_a_list, Use("decides")),
        (sized, Use("sizes")),
        (counted, Use("sizes")),
        (logged, Use("number")),
        (asserted_to_be_equal, Use("raises")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_statement_says_what_becomes_of_a_value(read, use):
    value = Value()
    read(value)
    assert value.uses == [use]


def test_numbers_pass_that_are_small_or_large_as_is_asked():
    for read, small in ((asserted_to_be_less, True), (asserted_to_be_more, False)):
        value = Value()
        read(value)
        (use,) = value.uses
        assert (use.passing_number == 0) is small
