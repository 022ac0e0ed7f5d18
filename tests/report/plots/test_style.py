"""Looks follow from names, and stay apart for the colour-blind and in grey."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from reformer_bench.report.plots.style import NAMED, Look, looks

# Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
TOGETHER = {
    "table-3": [
        "transformer",
        "reversible-transformer",
        "chunked-reversible-transformer",
        "lsh-transformer",
        "reformer",
        "flash-transformer",
    ],
    "attention": ["full", "memory-efficient", "sdpa", "local", "lsh"],
    "residual": ["standard", "checkpointed", "reversible", "reversible-bfloat16"],
    "chunks": ["whole", "chunked"],
    "offload": ["resident", "swapped"],
    "peers": [
        "reformer",
        "reformer-as-peers",
        "reformer-pytorch",
        "transformers",
        "flash-transformer",
    ],
    "rounds": ["full", "lsh-1", "lsh-2", "lsh-4", "lsh-8"],
    "deep": ["small", "paper"],
}
JUST_TOLD_APART = 10.0
"""Distance in CIELAB; 2.3 is what is just noticed side by side."""


def lab(colour: str, vision: str) -> np.ndarray:
    srgb = np.array(to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISION[vision] @ linear, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    f = np.cbrt(np.maximum(to_xyz @ seen / np.array([0.95047, 1.0, 1.08883]), 0.008856))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)
def test_what_stands_together_is_told_apart_by_colour(names: list[str], vision: str) -> None:
    found = looks(names)
    for one, other in itertools.combinations(names, 2):
        distance = np.linalg.norm(lab(found[one].colour, vision) - lab(found[other].colour, vision))
        assert distance > JUST_TOLD_APART, (one, other, distance)


@pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)
def test_what_stands_together_is_told_apart_without_colour(names: list[str]) -> None:
    found = looks(names)
    assert len({(look.marker, look.dashes) for look in found.values()}) == len(names)


def test_no_marker_of_a_variant_is_the_sign_of_a_stop() -> None:
    everything = [*NAMED.values(), *looks(f"name-{i}" for i in range(60)).values()]
    assert not {look.marker for look in everything} & {"x", ">", "+"}


@pytest.mark.parametrize("stem", [*NAMED, "lsh-4", "full-standard-16", "transformer-layers-8"])
def test_a_known_name_has_one_look_in_any_company(stem: str) -> None:
    alone = looks([stem])[stem]
    assert looks(["mine", "reformer", "sdpa", "yours", stem])[stem] == alone


def test_a_variant_of_a_known_name_has_its_colour_in_another_shade() -> None:
    found = looks(["lsh-1", "lsh-2", "lsh-4", "lsh-8"])
    lightness = [lab(look.colour, "full")[0] for look in found.values()]
    assert lightness == sorted(lightness, reverse=True)
    assert found["lsh-2"].colour == NAMED["lsh"].colour


def test_unknown_names_differ_and_do_not_depend_on_their_order() -> None:
    assert len({(look.colour, look.marker) for look in looks(map(str, range(40))).values()}) == 40
    assert len({look.colour for look in looks(["mine", "yours", "his", "hers"]).values()}) == 4
    assert looks(["mine"])["mine"] == looks(["transformer", "mine"])["mine"]


def test_text_in_a_look_is_darker_than_its_line() -> None:
    look = Look("#56b4e9", "s")
    assert lab(look.ink, "full")[0] < lab(look.colour, "full")[0]
