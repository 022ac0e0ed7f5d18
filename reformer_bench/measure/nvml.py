"""NvmlSampler records what the NVIDIA driver says of the device's memory, of ours, and of power."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

import torch

from reformer_bench.schema.record import NvmlMemory


@dataclass(frozen=True)
class DeviceIdentity:
    """What torch knows of a device that NVML knows as well."""

    uuid: str | None
    """The UUID without the GPU- or MIG- in front."""
    pci_bus_id: str | None
    """domain:bus:device.function, in hexadecimal."""
    visible_mig: str | None = None
    """The MIG instance that CUDA_VISIBLE_DEVICES names; CUDA uses at most one per process."""


@dataclass(frozen=True)
class Located:
    """An NVML device, and what it stands for."""

    handle: Any
    is_mig: bool
    notes: tuple[str, ...] = ()


def identify(device: torch.device) -> DeviceIdentity:
    """Return what tells a CUDA device apart; it asks the driver, which initialises CUDA."""
    properties: Any = torch.cuda.get_device_properties(device)
    uuid = getattr(properties, "uuid", None)
    pci = None
    if hasattr(properties, "pci_bus_id"):
        domain = getattr(properties, "pci_domain_id", 0)
        slot = getattr(properties, "pci_device_id", 0)
        pci = f"{domain:08x}:{properties.pci_bus_id:02x}:{slot:02x}.0"
    return DeviceIdentity(None if uuid is None else _bare(str(uuid)), pci, visible_mig())


def visible_mig() -> str | None:
    """Return the MIG instance named first in CUDA_VISIBLE_DEVICES, if it names one."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return first if first.startswith("MIG-") else None


def locate(pynvml: ModuleType, identity: DeviceIdentity) -> Located | str:
    """Return the NVML device with that identity, or the reason for none in one line."""
    names = [identity.visible_mig] if identity.visible_mig else []
    if identity.uuid:
        names += [f"MIG-{identity.uuid}", f"GPU-{identity.uuid}"]
    for name in names:
        handle = _try(pynvml, pynvml.nvmlDeviceGetHandleByUUID, name)
        if handle is not None and name.startswith("MIG-"):
            return Located(handle, is_mig=True, notes=(f"memory is of the MIG instance {name}",))
        if handle is not None:
            return _within_mig(pynvml, handle)
    if identity.pci_bus_id:
        handle = _try(pynvml, pynvml.nvmlDeviceGetHandleByPciBusId, identity.pci_bus_id)
        if handle is not None:
            return _within_mig(pynvml, handle)
    return (
        f"NVML knows no device with UUID {identity.uuid} or PCI address {identity.pci_bus_id}, "
        "which is torch's"
    )


def _within_mig(pynvml: ModuleType, handle: Any) -> Located:
    """Return the one MIG instance of a GPU that is cut up, or else the GPU itself."""
    mode = _try(pynvml, pynvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != 1:
        return Located(handle, is_mig=False)
    count = _try(pynvml, pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    found = [
        _try(pynvml, pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, i) for i in range(count)
    ]
    instances = [instance for instance in found if instance is not None]
    if len(instances) == 1:
        note = "memory is of the GPU's only MIG instance"
        return Located(instances[0], is_mig=True, notes=(note,))
    note = (
        f"the GPU is cut into {len(instances)} MIG instances and NVML can't tell which is "
        "ours: its numbers are of the whole GPU"
    )
    return Located(handle, is_mig=False, notes=(note,))


def _try(pynvml: ModuleType, query: Any, *arguments: Any) -> Any:
    """Return what a query answers; None where NVML says no."""
    try:
        return query(*arguments)
    except pynvml.NVMLError:
        return None


def _bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-").removeprefix("MIG-")


def load_nvml() -> tuple[ModuleType | None, str | None]:
    """Return the pynvml module, initialised, or None and the reason in one line."""
    try:
        pynvml = importlib.import_module("pynvml")
    except ImportError as error:
        return None, f"NVML is not there: {error}"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, f"NVML can't start: {error}"
    return pynvml, None


def open_nvml(
    device: torch.device, identity: DeviceIdentity | None = None, period_s: float = 0.02
) -> tuple[NvmlSampler | None, str | None]:
    """Return a sampler for torch's CUDA device, or None and the reason in one line.

    ``identity`` says which device it is, where torch shall not be asked: asking initialises CUDA in
    this process. Open the sampler before the first tensor is on the device: the growth then has
    what CUDA itself takes, as the process's own figure has.
    """
    pynvml, reason = load_nvml()
    if pynvml is None:
        return None, reason
    located = locate(pynvml, identify(device) if identity is None else identity)
    if isinstance(located, str):
        pynvml.nvmlShutdown()
        return None, located
    return NvmlSampler(pynvml, located, period_s), None


class NvmlSampler:
    """Samples in a thread between start and stop; ``sample`` takes a reading at once.

    The caching allocator keeps what it has reserved, so a reading right after a step has the
    step's reserved peak, whatever the period. Used memory counts the driver's own reserve. A
    query that fails is left out from then on and named in the notes; nothing here raises.
    """

    def __init__(self, pynvml: ModuleType, located: Located, period_s: float = 0.02) -> None:
        self._pynvml = pynvml
        self._located = located
        self._period_s = period_s
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed: dict[str, str] = {}
        self._device_bytes: list[int] = []
        self._process_bytes: list[int] = []
        self._process_hidden = False
        self._power_mw: list[int] = []
        self._energy_mj: list[int] = []

    def start(self) -> None:
        """Take the reading before the case, and start the thread."""
        self._read_energy()
        self.sample()
        self._thread = threading.Thread(target=self._run, name="nvml-sampler", daemon=True)
        self._thread.start()

    def sample(self) -> None:
        """Take one reading now."""
        with self._lock:
            memory = self._ask("memory", self._pynvml.nvmlDeviceGetMemoryInfo)
            if memory is not None:
                self._device_bytes.append(int(memory.used))
            self._read_process()
            if not self._located.is_mig:
                power = self._ask("power", self._pynvml.nvmlDeviceGetPowerUsage)
                if power is not None:
                    self._power_mw.append(int(power))

    def stop(self) -> None:
        """Take the last reading, end the thread and let go of NVML. To call it once is enough."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join()
        self._thread = None
        self.sample()
        self._read_energy()
        self._ask("shutdown", lambda _handle: self._pynvml.nvmlShutdown())

    def __enter__(self) -> NvmlSampler:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def result(self) -> NvmlMemory | None:
        """Return what the samples say; None where not even the device's memory could be read."""
        with self._lock:
            if not self._device_bytes:
                return None
            before, peak = self._device_bytes[0], max(self._device_bytes)
            energy = self._energy_mj[-1] - self._energy_mj[0] if len(self._energy_mj) > 1 else None
            power = round(sum(self._power_mw) / len(self._power_mw)) if self._power_mw else None
            seen = bool(self._process_bytes)
            return NvmlMemory(
                device_before_bytes=before,
                device_peak_bytes=peak,
                process_peak_bytes=max(self._process_bytes) if seen else peak - before,
                process_source="process" if seen else "device-delta",
                energy_mj=energy,
                mean_power_mw=power,
                n_samples=len(self._device_bytes),
                notes=self._notes(seen),
            )

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self.sample()

    def _read_process(self) -> None:
        processes = self._ask("processes", self._pynvml.nvmlDeviceGetComputeRunningProcesses)
        for process in processes or ():
            if process.pid == os.getpid():
                if process.usedGpuMemory is None:
                    self._process_hidden = True
                else:
                    self._process_bytes.append(int(process.usedGpuMemory))

    def _read_energy(self) -> None:
        if not self._located.is_mig:
            energy = self._ask("energy", self._pynvml.nvmlDeviceGetTotalEnergyConsumption)
            self._energy_mj += [] if energy is None else [int(energy)]

    def _ask(self, name: str, query: Callable[[Any], Any]) -> Any:
        """Return what NVML answers about the device; None once the query has failed."""
        if name in self._failed:
            return None
        try:
            return query(self._located.handle)
        except self._pynvml.NVMLError as error:
            self._failed[name] = str(error)
            return None

    def _notes(self, process_seen: bool) -> tuple[str, ...]:
        notes = list(self._located.notes)
        notes += [f"{name} could not be read: {why}" for name, why in self._failed.items()]
        if self._located.is_mig:
            notes.append("power and energy are of the whole GPU, not of a MIG instance: left out")
        if not process_seen and self._process_hidden:
            notes.append(
                "NVML lists this process without its memory; the growth of the device's memory is "
                "recorded instead"
            )
        elif not process_seen:
            notes.append(
                f"NVML lists no process with our id {os.getpid()}, as in a container; the growth "
                "of the device's memory is recorded instead, other processes' included"
            )
        return tuple(notes)
