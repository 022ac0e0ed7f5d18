"""The phases of a step, and the build before it."""

from __future__ import annotations

from typing import Literal

Phase = Literal["build", "forward", "backward", "optimizer"]
PHASES: tuple[Phase, ...] = ("build", "forward", "backward", "optimizer")
