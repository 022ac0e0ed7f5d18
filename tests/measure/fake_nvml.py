"""A stand-in for the pynvml module, with the devices and refusals a test asks for."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """What NVML raises."""


class FakeNvml(ModuleType):
    """One GPU named ``gpu``, and MIG instances by name; ``refused`` queries raise."""

    NVMLError = NVMLError

    def __init__(
        self,
        *,
        uuid: str = "GPU-aaaa",
        pci: str = "00000000:3b:00.0",
        migs: tuple[str, ...] = (),
        mig_mode: bool = False,
        refused: tuple[str, ...] = (),
        used: tuple[int, ...] = (100, 900, 300),
        processes: tuple[tuple[int, int | None], ...] = (),
    ) -> None:
        super().__init__("pynvml")
        self.uuid, self.pci, self.migs, self.mig_mode = uuid, pci, migs, mig_mode
        self.refused, self.used, self.processes = set(refused), list(used), processes
        self.energy = 0
        self.n_open = 0

    def _check(self, query: str) -> None:
        if query in self.refused:
            raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        self._check("init")
        self.n_open += 1

    def nvmlShutdown(self) -> None:
        self.n_open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid == self.uuid:
            return "gpu"
        if uuid in self.migs:
            return uuid
        raise NVMLError("Not Found")

    def nvmlDeviceGetHandleByPciBusId(self, pci: str) -> str:
        if pci == self.pci:
            return "gpu"
        raise NVMLError("Not Found")

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        self._check("mig")
        return [int(self.mig_mode), int(self.mig_mode)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:
        if index < len(self.migs):
            return self.migs[index]
        raise NVMLError("Not Found")

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        self._check("memory")
        used = self.used.pop(0) if len(self.used) > 1 else self.used[0]
        return SimpleNamespace(used=used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        self._check("processes")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        self._check("power")
        return 250_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self._check("energy")
        self.energy += 5000
        return self.energy
