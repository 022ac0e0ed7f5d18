"""The environment names machine, versions and instruction set, and no commit but the package's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reformer_bench.measure import environment
from reformer_bench.measure.environment import environment_to_play, instruction_set, onednn_set
from tests.measure.fake_nvml import FakeNvml


def git(root: Path, *arguments: str) -> str:
    identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_NOSYSTEM": "1"}
    identity |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        env={**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_on_the_cpu_the_device_is_the_processor() -> None:
    found = environment.collect(torch.device("cpu"))
    assert (found.device_kind, found.device_name) == ("cpu", environment.cpu_model())
    assert (found.device_memory_bytes, found.cuda_version, found.driver_version) == (None,) * 3
    assert found.torch_version == torch.__version__
    assert found.packages["numpy"]
    assert found.cpu_count >= 1


def test_the_host_is_told_apart_but_not_named() -> None:
    found = environment.collect(torch.device("cpu"))
    assert len(found.hostname_hash) == 8
    assert socket.gethostname() not in found.model_dump_json(exclude={"os"})


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert environment.commit(checkout) == head
    (checkout / "new").write_text("untracked")
    assert environment.commit(checkout) == head
    (checkout / "file").write_text("two")
    assert environment.commit(checkout) == f"{head}-dirty"


def test_a_package_installed_inside_somebody_elses_checkout_has_no_commit(checkout: Path) -> None:
    inside = checkout / "site-packages"
    inside.mkdir()
    assert environment.commit(inside) is None


def test_a_checkout_without_a_commit_or_a_machine_without_git_has_none(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    assert environment.commit(empty) is None
    monkeypatch.setenv("PATH", "")
    assert environment.commit(checkout) is None


def test_a_containers_limit_is_the_hosts_memory(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    machine = environment.host_memory_bytes((limit,))
    limit.write_text("max\n")
    assert environment.host_memory_bytes((limit,)) == machine
    limit.write_text("1048576\n")
    assert environment.host_memory_bytes((limit,)) == 2**20


def test_the_c_librarys_settings_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    for name in ("LD_PRELOAD", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    assert environment.collect(torch.device("cpu")).allocator_settings == ""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    assert environment.collect(torch.device("cpu")).allocator_settings == "MALLOC_ARENA_MAX=1"


def test_the_drivers_version_comes_from_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    assert environment._driver_version() == "580.65.06"
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(refused=("init",)))
    assert environment._driver_version() is None


@pytest.mark.gpu
def test_on_cuda_the_device_is_the_gpu() -> None:
    found = environment.collect(torch.device("cuda", 0))
    assert found.device_kind == "cuda"
    assert found.device_memory_bytes is not None
    assert found.device_memory_bytes > 2**30
    assert found.cuda_version == torch.version.cuda


AVX2 = dict.fromkeys(["sse4_1", "avx", "avx2"], True)
AVX512 = AVX2 | dict.fromkeys(["avx512_f", "avx512_bw", "avx512_vl", "avx512_dq"], True)
ZEN4 = AVX512 | {"avx512_vnni": True, "avx512_bf16": True}


@pytest.mark.parametrize(
    ("features", "limit", "wanted"),
    [
        ({}, "", None),
        (AVX2, "", "AVX2"),
        (AVX2, "AVX512_CORE", "AVX2"),
        (ZEN4, "", "AVX512_CORE_BF16"),
        (ZEN4, "avx2", "AVX2"),
        (ZEN4, "AVX512_CORE_AMX", "AVX512_CORE_BF16"),
        ({**ZEN4, "avx512_fp16": True}, "AVX10_1_512", "AVX512_CORE_FP16"),
        (AVX512 | {"avx512_bf16": True}, "", "AVX512_CORE"),
    ],
)
def test_the_largest_set_up_to_the_limit(features, limit, wanted):
    assert onednn_set(features, limit) == wanted


@pytest.mark.parametrize("recorded", ["", "SVE256", "AVX512", "AVX2, oneDNN AVX2; rm -rf /"])
def test_what_is_not_understood_sets_nothing(recorded):
    assert environment_to_play(recorded) == {}


@pytest.mark.slow
def test_a_process_plays_what_was_recorded():
    if ", oneDNN AVX" not in instruction_set():
        pytest.skip("not an x86 processor with AVX2")
    for wanted in ("AVX2, oneDNN AVX2", instruction_set()):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from {instruction_set.__module__} import *; print(instruction_set())",
            ],
            env={**os.environ, **environment_to_play(wanted)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == wanted
