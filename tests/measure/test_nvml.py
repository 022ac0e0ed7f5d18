"""What NVML can't see is said, never made up: driver, process, MIG and queries missing in turn."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from reformer_bench.measure.nvml import DeviceIdentity, NvmlSampler, open_nvml, visible_mig
from reformer_bench.schema.record import NvmlMemory
from tests.measure.fake_nvml import FakeNvml

DEVICE = torch.device("cuda", 0)
IDENTITY = DeviceIdentity(uuid="aaaa", pci_bus_id="00000000:3b:00.0")


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeNvml) -> FakeNvml:
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def opened(identity: DeviceIdentity = IDENTITY) -> NvmlSampler:
    """A sampler whose thread takes no reading of its own within a test."""
    sampler, reason = open_nvml(DEVICE, identity, period_s=3600)
    assert sampler is not None, reason
    return sampler


def measured(identity: DeviceIdentity = IDENTITY) -> NvmlMemory:
    """Three readings: before, on demand, at the end."""
    with opened(identity) as sampler:
        sampler.sample()
    result = sampler.result()
    assert result is not None
    return result


def test_without_the_module_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler, reason = open_nvml(DEVICE, IDENTITY)
    assert sampler is None
    assert reason is not None
    assert reason.startswith("NVML is not there:")


def test_without_a_driver_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(refused=("init",)))
    assert open_nvml(DEVICE, IDENTITY) == (None, "NVML can't start: Not Supported")


def test_a_visible_process_is_measured_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, FakeNvml(processes=((1, 7), (os.getpid(), 640))))
    found = measured()
    assert (found.process_source, found.process_peak_bytes) == ("process", 640)
    assert (found.device_before_bytes, found.device_peak_bytes, found.n_samples) == (100, 900, 3)
    assert (found.energy_mj, found.mean_power_mw, found.notes) == (5000, 250_000, ())
    assert fake.n_open == 0


def test_in_a_container_the_devices_growth_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(processes=((999_999_999, 640),)))
    found = measured()
    assert (found.process_source, found.process_peak_bytes) == ("device-delta", 800)
    assert "no process with our id" in found.notes[0]


def test_a_process_listed_without_memory_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(processes=((os.getpid(), None),)))
    found = measured()
    assert found.process_source == "device-delta"
    assert "without its memory" in found.notes[0]


@pytest.mark.parametrize(
    ("query", "field"),
    [("power", "mean_power_mw"), ("energy", "energy_mj")],
)
def test_a_query_not_supported_is_absent_and_noted(
    monkeypatch: pytest.MonkeyPatch, query: str, field: str
) -> None:
    install(monkeypatch, FakeNvml(refused=(query,), processes=((os.getpid(), 640),)))
    found = measured()
    assert getattr(found, field) is None
    assert found.notes == (f"{query} could not be read: Not Supported",)


def test_a_process_list_not_supported_falls_to_the_devices_growth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, FakeNvml(refused=("processes",)))
    found = measured()
    assert found.process_source == "device-delta"
    assert found.notes[0] == "processes could not be read: Not Supported"


def test_without_even_memory_there_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(refused=("memory",)))
    with opened() as sampler:
        pass
    assert sampler.result() is None


def test_the_pci_address_serves_where_the_uuid_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(uuid="GPU-bbbb"))
    assert measured().device_peak_bytes == 900


def test_a_device_nvml_does_not_know_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, FakeNvml(uuid="GPU-bbbb", pci="00000000:ff:00.0"))
    sampler, reason = open_nvml(DEVICE, IDENTITY)
    assert sampler is None
    assert reason is not None
    assert "aaaa" in reason
    assert "3b:00.0" in reason
    assert fake.n_open == 0


@pytest.mark.parametrize(
    ("identity", "migs"),
    [
        pytest.param(IDENTITY, ("MIG-aaaa", "MIG-cccc"), id="torch-has-the-instances-uuid"),
        pytest.param(
            DeviceIdentity("aaaa", None, "MIG-cccc"), ("MIG-bbbb", "MIG-cccc"), id="named-visible"
        ),
        pytest.param(IDENTITY, ("MIG-cccc",), id="only-one-instance"),
    ],
)
def test_a_mig_instance_is_found_and_has_no_power(
    monkeypatch: pytest.MonkeyPatch, identity: DeviceIdentity, migs: tuple[str, ...]
) -> None:
    install(monkeypatch, FakeNvml(migs=migs, mig_mode=True, processes=((os.getpid(), 640),)))
    found = measured(identity)
    assert "MIG instance" in found.notes[0]
    assert (found.energy_mj, found.mean_power_mw) == (None, None)
    assert "power and energy" in found.notes[1]


def test_an_unknown_mig_instance_is_measured_as_the_gpu_and_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, FakeNvml(migs=("MIG-b", "MIG-c"), mig_mode=True))
    assert "numbers are of the whole GPU" in measured().notes[0]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, None),
        ("", None),
        ("1,0", None),
        ("GPU-aaaa", None),
        ("MIG-cccc", "MIG-cccc"),
        ("MIG-c,0", "MIG-c"),
    ],
)
def test_the_visible_mig_instance_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_mig() == expected


def test_the_thread_samples_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml())
    sampler, _ = open_nvml(DEVICE, IDENTITY, period_s=0.001)
    assert sampler is not None
    with sampler:
        for _ in range(5000):
            result = sampler.result()
            if result is not None and result.n_samples > 3:
                break
            sampler._stopping.wait(0.001)
    assert result is not None
    assert result.n_samples > 3


@pytest.mark.gpu
def test_a_big_tensor_shows_in_the_devices_memory() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    sampler, reason = open_nvml(device)
    assert sampler is not None, reason
    with sampler:
        held = torch.empty(2**28, device=device)
        sampler.sample()
        del held
    result = sampler.result()
    assert result is not None
    assert result.device_peak_bytes - result.device_before_bytes >= 2**30
    assert result.process_peak_bytes is not None
    assert result.process_peak_bytes >= 2**30
