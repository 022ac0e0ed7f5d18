"""The options of commands that explain a peak."""

from __future__ import annotations

import click

from reformer_bench.cli.options import Decorator, all_of


def explain_options(text: str) -> Decorator:
    """``--explain``, and how it is shown."""
    return all_of(
        click.option("--explain", is_flag=True, help=text),
        click.option(
            "--top",
            type=click.IntRange(min=1),
            default=12,
            show_default=True,
            help="With --explain: how many rows to show.",
        ),
        click.option(
            "--group",
            "grouping",
            type=click.Choice(["tensor", "layer", "line", "kind"]),
            default="tensor",
            show_default=True,
            help="With --explain: what makes a row.",
        ),
    )
