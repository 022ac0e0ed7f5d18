"""by_operator: a function is asked once about each operator."""

import torch

from reformer_bench.measure.fake.by_operator import by_operator


def test_each_operator_is_asked_about_once():
    asked = []

    @by_operator
    def name(operator):
        asked.append(operator)
        return str(operator)

    add, mul = torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor
    assert [name(add), name(mul), name(add)] == [str(add), str(mul), str(add)]
    assert asked == [add, mul]
