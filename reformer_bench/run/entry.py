"""What workers run, importable without torch, so that a caller without it can name it."""

from __future__ import annotations

import json
from dataclasses import replace

from reformer_bench.run.executor import Description, WorkOrder
from reformer_bench.run.forkserver import tell
from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.prediction import NotPredicted, Prediction
from reformer_bench.schema.record import AllocatorMemory, Record

PRELOAD = ("reformer_bench.run.preload",)
"""What a fork server imports, so that these functions start at once."""


def measure(order: WorkOrder, matmul_flops_per_second: float | None) -> Record:
    """Measure one case; see worker.measure_case."""
    from reformer_bench.run.worker import measure_case

    return measure_case(order, matmul_flops_per_second)


def library_model(case: Case) -> str | None:
    """Return the type of transformers' models that a case needs; None where it needs none, or where
    its configuration can't be read, which the case's worker will say.
    """
    if case.implementation == "transformers":
        return "reformer"
    if case.target is None or case.target.name.runs_code:
        return None
    path = case.target.name.path
    if path is None:
        return case.target.name.place
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


def import_library(model_type: str) -> None:
    """Import transformers and the code of a type of its models; nothing of a user's own."""
    from reformer_bench.peers.targets.transformers_models import import_type

    import_type(model_type)


def measure_memory(case: Case) -> tuple[AllocatorMemory, str] | InputError:
    """Return a case's memory on the CPU and what its length counts; a failure that the user can
    mend is returned instead of raised, which would lose its type.
    """
    from reformer_bench.peers.targets.failures import told_in_one_line
    from reformer_bench.run.validate import measured_workload

    try:
        with told_in_one_line(case.target):
            memory, settings = measured_workload(case)
    except InputError as error:
        return InputError(str(error))
    return memory, settings.get("length", "tokens")


def describe(device: str) -> Description | InputError:
    """Say what a device is; return an error instead of raising it, which would lose its type."""
    from reformer_bench.run.worker import describe_device

    try:
        return describe_device(device)
    except InputError as error:
        return error


def matmul_speed(device: str, dtype: str) -> float | None:
    """Return the FLOP/s of one large matrix product; see worker.matmul_speed."""
    from reformer_bench.run.worker import matmul_speed

    return matmul_speed(device, dtype)


def predict(cases: list[Case], profile: str | None) -> list[Prediction | NotPredicted]:
    """Predict cases one after another, telling of each; what can't be predicted says why."""
    from reformer_bench.run.predict import predict_case
    from reformer_bench.schema.devices import device_profile

    device = None if profile is None else device_profile(profile)
    found: list[Prediction | NotPredicted] = []
    for case in cases:
        try:
            predicted = predict_case(case, profile=device, explain=True)
            assert predicted.explanation is not None
            # A record keeps no more of it, and a run has many cases.
            found.append(replace(predicted, explanation=predicted.explanation.kept()))
        except Exception as error:
            # One case's failure is its own record, whatever went wrong.
            text = " ".join(str(error).split())[:300]
            # The text of an InputError says it all.
            told = text if type(error) is InputError else f"{type(error).__name__}: {text}"
            found.append(NotPredicted(told))
        tell(1)
    return found
