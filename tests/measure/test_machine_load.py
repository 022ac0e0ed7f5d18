"""Machine load: what others take of the processors that this process may use."""

import os

import pytest

from reformer_bench.measure import host as machine_load
from reformer_bench.measure.host import Glance, Reading, load_between, read
from reformer_bench.schema.record import Load
from tests.run.builders import environment


def test_only_processors_that_may_be_used_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_load, "_usable_processors", lambda: {0, 2})
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 0 0\n"
        "cpu0 100 10 20 5000 70 3 4 50 0 0\n"
        "cpu1 999 999 999 0 0 0 0 999 0 0\n"
        "cpu2 200 0 0 5000 0 0 0 0 0 0\n"
        "intr 1 2 3\n"
    )
    found = read(stat)
    assert (found.busy_s, found.stolen_s) == (3.37, 0.5)


@pytest.mark.parametrize("text", [None, "intr 1 2 3\n"], ids=["no file", "no processor"])
def test_where_the_system_does_not_tell_nothing_is_known(tmp_path, text):
    stat = tmp_path / "stat"
    if text is not None:
        stat.write_text(text)
    assert read(stat) is None
    assert load_between(None, Reading(1.0, 0.0, 0.0), 0.0) is None


def test_our_own_time_is_not_that_of_others():
    before, after = Reading(10.0, 100.0, 5.0), Reading(20.0, 115.0, 6.0)
    load = load_between(before, after, own_s=12.0)
    assert load == Load(own_cores=1.2, other_cores=0.3, stolen_cores=0.1)
    assert load_between(before, after, own_s=16.0).other_cores == 0.0


@pytest.mark.parametrize(
    ("threads", "kind", "others", "disturbs"),
    [
        (2, "cpu", 0.24, False),
        (2, "cpu", 0.26, True),
        (1, "cpu", 1.2, False),
        (1, "cpu", 1.3, True),
        (2, "cuda", 1.2, False),
    ],
)
def test_a_load_disturbs_where_it_takes_what_a_case_computes_on(threads, kind, others, disturbs):
    here = environment(cpu_count=2, torch_threads=threads, device_kind=kind)
    assert Load(own_cores=1.0, other_cores=others).disturbs(here) is disturbs


@pytest.mark.parametrize(
    ("load", "busiest", "words"),
    [
        (
            Load(own_cores=0, other_cores=1.0),
            (("python", 42, 1.0),),
            "another process (python, 42) takes 1.0 of 2 cores",
        ),
        (
            Load(own_cores=0, other_cores=1.5),
            (("cc1", 7, 0.9), ("ld", 8, 0.6)),
            "another process (cc1, 7) takes 0.9 of 2 cores, and others 0.6",
        ),
        (Load(own_cores=0, other_cores=1.0), (), "other processes take 1.0 of 2 cores"),
        (
            Load(own_cores=0, other_cores=0.1, stolen_cores=0.9),
            (),
            "this machine's host gives 1.0 of its 2 cores to others",
        ),
    ],
    ids=["one", "two", "unseen", "stolen"],
)
def test_the_words_say_who_takes_how_much(load, busiest, words):
    assert Glance(load, busiest).words(2) == words


def test_a_glance_at_this_machine_adds_up():
    found = machine_load.look(0.1)
    if found is None:
        pytest.skip("the system doesn't tell")
    n_processors = len(os.sched_getaffinity(0))
    assert 0.0 <= found.load.other_cores <= n_processors + 1
    assert all(number != os.getpid() for _, number, _ in found.busiest)
