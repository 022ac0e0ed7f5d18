"""The control group's files, of both versions, inside containers and out."""

import pytest

from reformer_bench.measure import host as cgroup


@pytest.fixture
def tree(tmp_path):
    def make(proc: str, files: dict[str, str]):
        (tmp_path / "cgroup").write_text(proc)
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "cgroup", tmp_path / "mount"

    return make


def test_version_2_in_its_own_folder(tree):
    where = tree(
        "0::/user/a\n",
        {
            "user/a/memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
            "user/a/memory.max": "1000\n",
            "user/a/memory.current": "400\n",
        },
    )
    assert cgroup.oom_kills(*where) == 2
    assert cgroup.available_bytes(*where) == 600


def test_version_2_in_a_container_whose_path_is_the_hosts(tree):
    where = tree("0::/kubepods/pod1\n", {"memory.events": "oom_kill 7\n", "memory.max": "max\n"})
    assert cgroup.oom_kills(*where) == 7
    assert cgroup.available_bytes(*where) is None


def test_version_1(tree):
    where = tree(
        "9:cpu:/a\n4:memory:/a/b\n0::/\n",
        {
            "memory/a/b/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            "memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/a/b/memory.usage_in_bytes": "400\n",
        },
    )
    assert cgroup.oom_kills(*where) == 1
    assert cgroup.available_bytes(*where) is None, "this limit means none"


def test_without_groups_nothing_is_known(tmp_path):
    assert cgroup.oom_kills(tmp_path / "none", tmp_path) is None
    assert cgroup.available_bytes(tmp_path / "none", tmp_path) is None
