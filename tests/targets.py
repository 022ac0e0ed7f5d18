"""Targets of the tests: files of a user's own, written into a folder, and cases of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reformer_bench.run.overrides import cases_of_models
from reformer_bench.schema.case import Case

CODE = """
import sys
from pathlib import Path

import torch
from torch import nn

Path(__file__).with_suffix(".imported").touch()


class Net(nn.Module):
    def __init__(self, width, keep=0):
        super().__init__()
        self.emb = nn.Embedding(32, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, width))
            for _ in range(2)
        )
        self.keep = keep

    def forward(self, tokens):
        x = self.emb(tokens)
        for layer in self.layers:
            x = x + layer(x)
        for _ in range(self.keep):
            x = torch.tanh(x)
        return x


class Model:
    def __init__(self, width=16, keep=0):
        self.module = Net(width, keep)

    def inputs(self, batch, length, device):
        return torch.randint(32, (batch, length), device=device)

    def loss(self, module, inputs):
        return module(inputs).square().mean()
"""


def write_target(folder: Path, more: str = "", name: str = "mine.py") -> Path:
    """Write a file with the target ``Model``, and more code below it."""
    path = folder / name
    path.write_text(f"{CODE}\n{more}\n", encoding="utf-8")
    return path


def was_imported(path: Path) -> bool:
    """Whether the file was run: it says so with a file beside it."""
    return path.with_suffix(".imported").exists()


def target_case(target: str, length: int = 32, *settings: str, **options: Any) -> Case:
    """The case of a target at a length."""
    (case,) = cases_of_models([target], "cpu", seq_len=str(length), settings=settings, **options)
    return case
