"""Code that reads values: what follows from constants is known, the rest is assumed and noted."""

import linecache

import pytest
import torch
from torch import nn

import reformer_bench
from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake.reads import NotPredictableError
from reformer_bench.measure.fake.recording import record_fake_allocations


def events(recorder, work) -> list[int]:
    """Every allocation and release of ``work``, as the sums that are alive after each."""
    with recorder() as recording, recording.phase("forward"):
        work()
    return [int(n) for n in recording.timeline.live_bytes]


def peak(recorder, work) -> int:
    return max(events(recorder, work))


def by_reads(work):
    """Run ``work`` on fake tensors; the notes of what was assumed."""
    with record_fake_allocations() as recording, recording.phase("forward"):
        work()
    return list(recording.reads.notes)


def drop_path_rates():
    return [x.item() for x in torch.linspace(0, 0.1, 5)]


def by_position():
    places = torch.arange(12).reshape(3, 4)
    return (places[:, 1:] - places[:, :-1]).sum(0).tolist()


def written_in_place():
    mask = torch.zeros(2, 8)
    mask[:, 5:] = 1
    mask[0].mul_(3)
    return mask.sum(-1).tolist()


def filled_anew():
    x = torch.empty(3)
    x.fill_(2.5)
    x[1:].zero_()
    return x.tolist()


def of_a_list():
    return torch.tensor([3, 1, 2]).sort().values.cumsum(0).tolist()


def compared():
    return torch.equal(torch.ones(3), torch.full((3,), 1.0)), bool((torch.arange(3) == 7).any())


@pytest.mark.parametrize(
    "read",
    [drop_path_rates, by_position, written_in_place, filled_anew, of_a_list, compared],
    ids=lambda read: read.__name__,
)
def test_what_follows_from_constants_is_read_as_it_is(read):
    found = []
    assert by_reads(lambda: found.append(read())) == []
    assert found == [read()]


def overwritten():
    x = torch.ones(4)
    x.copy_(torch.randn(4))
    return x.sum().item()


def added_to_through_a_view():
    x = torch.ones(4)
    x[1:].add_(torch.rand(3))
    return x.max().item()


def drawn():
    return torch.zeros(4).normal_().sum().item()


@pytest.mark.parametrize(
    "read",
    [overwritten, added_to_through_a_view, drawn, lambda: torch.empty(1).item()],
    ids=["overwritten", "through a view", "drawn", "left as it was"],
)
def test_what_chance_has_touched_is_known_no_longer(read):
    assert len(by_reads(read)) == 1


def raises_if_any_is_negative(x):
    if (x < 0).any():
        raise ValueError


def asserts_that_all_are_small(x):
    assert (x < 9).all()
    assert x.max() < 9
    assert x.max().item() < 9


def raises_unless_equal(x):
    if not torch.equal(x, x.clone()):
        raise ValueError


def raises_if_none_or_infinite(x):
    if torch.isnan(x).any() or torch.isinf(x).any():
        raise ValueError


def leaves_a_loop(x):
    while not (x > 3).all():
        x = x + torch.rand(5)
    while True:
        x = x + torch.rand(5)
        if (x > 3).all():
            break


@pytest.mark.parametrize(
    "check",
    [
        raises_if_any_is_negative,
        asserts_that_all_are_small,
        raises_unless_equal,
        raises_if_none_or_infinite,
        leaves_a_loop,
    ],
    ids=lambda check: check.__name__,
)
def test_a_check_is_taken_to_pass_and_a_loop_to_end(check):
    notes = by_reads(lambda: check(torch.randn(5)))
    assert notes
    assert all(f"{__file__}:" in note for note in notes)


def test_numbers_that_are_infinite_or_none_are_taken_to_be_absent():
    def clamped(x):
        return x.clamp(max=1) if torch.isnan(x).any() else x

    (note,) = by_reads(lambda: clamped(torch.randn(5)))
    assert note.endswith("was taken to be False")


def test_the_same_line_is_noted_once():
    def repeated():
        for _ in range(3):
            if torch.rand(()) < 0.5:
                raise ValueError

    assert len(by_reads(repeated)) == 1


def test_a_layer_that_may_be_skipped_is_taken_to_run():
    ran = []
    by_reads(lambda: torch.rand(()) < 0.1 or ran.append(True))
    assert ran == [True]


def train(step_of):
    """A step of a small module by ``step_of(module)``, which returns the loss."""

    def step(module, phase) -> None:
        with phase("forward"):
            loss = step_of(module)
        with phase("backward"):
            loss.backward()
        module.zero_grad()

    return step


def test_a_prediction_has_the_notes_of_its_step():
    def logs(module):
        loss = module(torch.ones(2, 8)).sum()
        loss.item()
        return loss

    found = reformer_bench.predict(lambda: nn.Linear(8, 8), train(logs))
    (note,) = found.notes
    path, _, rest = note.partition(" read at ")[2].partition(":")
    line = linecache.getline(path, int(rest.split(" ", 1)[0])).strip()
    assert (path, line) == (__file__, "loss.item()")
    quiet = reformer_bench.predict(
        lambda: nn.Linear(8, 8), train(lambda module: module(torch.ones(2, 8)).sum())
    )
    assert quiet.notes == ()


def test_arrays_hold_what_is_known_and_else_ones():
    found = []

    def arrays():
        found.append(torch.arange(3).numpy().tolist())
        found.append(torch.randn(2).detach().numpy().tolist())

    (note,) = by_reads(arrays)
    assert found == [[0, 1, 2], [1.0, 1.0]]
    assert f"{__file__}:" in note
    with pytest.raises(NotPredictableError, match=r"numpy\(\).*test_values"):
        by_reads(lambda: torch.randint(9, (2,)).numpy())


@pytest.mark.parametrize("std", [0.02, 1.0, 4.0])
def test_truncated_normals_are_drawn_as_often_as_their_bounds_ask(std):
    def initialise():
        nn.init.trunc_normal_(torch.empty(200, 50), std=std)

    assert by_reads(initialise) == []
    torch.manual_seed(0)
    assert peak(record_fake_allocations, initialise) == peak(record_cpu_allocations, initialise)


MASK = [True, False, True, True] * 25


def selected():
    return torch.ones(100, 6)[torch.tensor(MASK)]


def put():
    torch.zeros(100, 6)[torch.tensor(MASK)] = torch.ones(75, 6)


def filled():
    torch.zeros(100)[torch.tensor(MASK)] = 1.0


def learned_through_a_selection():
    x = torch.ones(100, 6, requires_grad=True)
    x[torch.tensor(MASK)].sum().backward()


SIZED = {
    "indexed by a mask": selected,
    "put by a mask": put,
    "one number put by a mask": filled,
    "the gradient of what a mask selects": learned_through_a_selection,
    "places": lambda: torch.tensor(MASK).reshape(10, 10).nonzero(),
    "masked_select": lambda: torch.ones(100).masked_select(torch.tensor(MASK)),
    "masked_select of little": lambda: torch.ones(100).masked_select(torch.arange(100) < 3),
    "masked_select by threads": lambda: torch.ones(40_000).masked_select(torch.arange(40_000) < 9),
    "repeated": lambda: torch.ones(5, 8).repeat_interleave(torch.tensor([1, 2, 3, 4, 5]), 0),
    "unique": lambda: torch.arange(100).remainder(7).unique(),
}


@pytest.mark.parametrize("name", SIZED)
def test_sizes_that_follow_from_constants_are_predicted_to_the_byte(name):
    assert by_reads(SIZED[name]) == []
    assert peak(record_fake_allocations, SIZED[name]) == peak(record_cpu_allocations, SIZED[name])


@pytest.mark.parametrize(
    "select",
    [
        lambda x: x[x > 0],
        lambda x: x[x[:, 0] > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: torch.where(x > 0),
    ],
    ids=["elements", "rows", "masked_select", "places"],
)
def test_a_size_that_chance_decides_is_taken_to_be_the_largest(select):
    def work():
        select(torch.randn(100, 6))

    (note,) = by_reads(work)
    assert "upper bound" in note

    def of_all():
        select(torch.rand(100, 6) + 1)

    assert peak(record_fake_allocations, work) == peak(record_cpu_allocations, of_all)
    assert peak(record_fake_allocations, work) >= peak(record_cpu_allocations, work)


def counts_by_value(module, phase) -> None:
    with phase("forward"):
        y = module(torch.randn(2, 64))
        torch.empty(int((y > 0).sum()))


def repeats_by_value(module, phase) -> None:
    with phase("forward"):
        module(torch.randn(2, 64)).repeat_interleave(torch.randint(3, (2,)), 0)


def rounds_to_a_size(module, phase) -> None:
    with phase("forward"):
        torch.empty(int(module(torch.randn(2, 64)).sum().item()))


@pytest.mark.parametrize(
    ("step", "operator", "line"),
    [
        (counts_by_value, "_local_scalar_dense", "torch.empty(int((y > 0).sum()))"),
        (
            repeats_by_value,
            "repeat_interleave",
            "module(torch.randn(2, 64)).repeat_interleave(torch.randint(3, (2,)), 0)",
        ),
        (
            rounds_to_a_size,
            "_local_scalar_dense",
            "torch.empty(int(module(torch.randn(2, 64)).sum().item()))",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_size_without_a_bound_is_an_error_with_operator_line_and_advice(step, operator, line):
    with pytest.raises(NotPredictableError) as caught:
        reformer_bench.predict(lambda: nn.Linear(64, 64), step)
    message = str(caught.value)
    assert "\n" not in message
    assert operator in message
    what, advice = message.split("; ")
    path, _, number = what.rpartition(", at ")[2].rpartition(":")
    assert (path, linecache.getline(path, int(number)).strip()) == (__file__, line)
    assert "constant" in advice


def test_what_fails_after_a_bound_says_so():
    def mismatched(x):
        return x[x > 0].reshape(3, 2)

    with pytest.raises(NotPredictableError, match=r"shape .*after aten.nonzero.*upper bound"):
        by_reads(lambda: mismatched(torch.randn(10)))


class Experts(nn.Module):
    """Each row goes to two of eight experts, which run one after another on the rows they get."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 8)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(8))

    def forward(self, x):
        chosen = self.router(x).topk(2).indices
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, _ = torch.where(chosen == number)
            out.index_add_(0, rows, expert(x[rows]))
        return out


def test_the_rows_of_experts_are_as_many_as_are_chosen():
    step = train(lambda module: module(torch.randn(512, 16)).sum())
    found = reformer_bench.predict(Experts, step)
    (note,) = found.notes
    assert "choices of 2 of 8" in note
    torch.manual_seed(0)
    with record_cpu_allocations() as recording:
        with recording.phase("build"):
            module = Experts()
        for number in (0, 1):
            step(module, lambda name, number=number: recording.phase(name, number))
    measured = recording.allocator_memory().peak_allocated_bytes
    assert measured <= found.peak_bytes <= 1.5 * measured
