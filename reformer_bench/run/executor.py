"""Executor: the interface behind which orders become records, here or elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from reformer_bench.run.order import Description, WorkOrder
from reformer_bench.spec.record import Record


class Executor(Protocol):
    """The interface of what runs cases."""

    def describe(self, device: str) -> Description:
        """Say what ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` is where the cases will run.

        Raises InputError where there is no such device.
        """

    def run(self, orders: Iterable[WorkOrder]) -> Iterator[Record]:
        """Yield a record for every order, as they end.

        An executor that runs one case after another takes an order only when it has yielded the
        record before, so that orders may depend on records.
        """

    def close(self) -> None:
        """End what still runs."""
