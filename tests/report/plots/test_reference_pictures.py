"""The pictures beside the reference runs are those that the commands draw of them today."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from reformer_bench.claims.figure import write_claims_figure
from reformer_bench.claims.paper import judge_claims
from reformer_bench.report.plots.files import write_plots
from reformer_bench.store import load_run

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
BLOCK = 16
"""Pixels on a side of the blocks compared: letters and edges may differ a little with the version
of matplotlib, the shade of a block where a curve runs does not."""
FOLDERS = sorted({path.parent.name for path in REFERENCE.glob("*/*.png")})
# Whole figures are drawn; what is in them is tested in the other files of this folder.
pytestmark = pytest.mark.slow


def blocks(image: np.ndarray) -> np.ndarray:
    """Mean colours of blocks [rows, columns, 3]."""
    rows, columns = image.shape[0] // BLOCK, image.shape[1] // BLOCK
    cut = image[: rows * BLOCK, : columns * BLOCK, :3]
    return cut.reshape(rows, BLOCK, columns, BLOCK, 3).mean(axis=(1, 3))


def share_that_differs(one: Path, other: Path) -> float:
    """Share of the blocks with any ink that differ by more than a tenth of the scale; 1.0: another
    size."""
    first, second = (imread(path) for path in (one, other))
    if first.shape != second.shape:
        return 1.0
    first, second = blocks(first), blocks(second)
    inked = (first.min(axis=2) < 0.97) | (second.min(axis=2) < 0.97)
    return float((np.abs(first - second).max(axis=2) > 0.1)[inked].mean())


@pytest.mark.parametrize("folder", FOLDERS)
def test_pictures_of_a_run_are_what_plot_draws(folder: str, tmp_path, monkeypatch) -> None:
    from reformer_bench.report.plots import files as plots

    save = plots._save

    def save_what_is_kept(figure, out_dir, name, formats):
        return save(figure, out_dir, name, formats) if is_kept(name) else []

    def is_kept(name: str) -> bool:
        return name.startswith("overview") or name.endswith("-tradeoff")

    monkeypatch.setattr(plots, "_save", save_what_is_kept)
    write_plots(load_run(REFERENCE / folder).records, tmp_path, ("png",))
    kept = {path.name for path in (REFERENCE / folder).glob("*.png")} - {"claims.png"}
    assert kept == {path.name for path in tmp_path.iterdir()}
    for name in kept:
        assert share_that_differs(REFERENCE / folder / name, tmp_path / name) < 0.02, name


def test_the_picture_of_the_claims_is_what_claims_draws(tmp_path) -> None:
    patterns = ("paper-*", "million-*", "param-offload-*")
    folders = [folder for pattern in patterns for folder in sorted(REFERENCE.glob(pattern))]
    records = [record for folder in folders for record in load_run(folder).records]
    where = "AMD EPYC, 2 threads · PyTorch 2.13.0+cpu"
    write_claims_figure(judge_claims(records), where, tmp_path / "claims.png")
    (kept,) = REFERENCE.glob("paper-*/claims.png")
    assert share_that_differs(kept, tmp_path / "claims.png") < 0.02


def test_another_picture_is_told_from_the_one_kept(tmp_path) -> None:
    (folder,) = REFERENCE.glob("seq-scaling-*")
    records = [r for r in load_run(folder).records if r.case.variant != "flash-transformer"]
    more = [r for r in load_run(folder).records if r.case.variant == "flash-transformer"]
    renamed = [
        r.model_copy(update={"case": r.case.model_copy(update={"variant": "mine"})}) for r in more
    ]
    write_plots([*records, *renamed], tmp_path, ("png",))
    assert share_that_differs(folder / "overview.png", tmp_path / "overview.png") > 0.02
