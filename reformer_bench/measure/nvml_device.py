"""Finds the NVML device that is torch's cuda:N: by UUID, MIG instances included, else by PCI
address.

Indices don't do: CUDA_VISIBLE_DEVICES renumbers torch's devices, and may name them by UUID.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch


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
        return Located(
            instances[0], is_mig=True, notes=("memory is of the GPU's only MIG instance",)
        )
    return Located(
        handle,
        is_mig=False,
        notes=(
            f"the GPU is cut into {len(instances)} MIG instances and NVML can't tell which is "
            "ours: its numbers are of the whole GPU",
        ),
    )


def _try(pynvml: ModuleType, query: Any, *arguments: Any) -> Any:
    """Return what a query answers; None where NVML says no."""
    try:
        return query(*arguments)
    except pynvml.NVMLError:
        return None


def _bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-").removeprefix("MIG-")
