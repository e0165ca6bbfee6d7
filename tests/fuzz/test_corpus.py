"""The corpus of the fuzz campaign, and what it found, through every target again."""

import pytest

from tests.fuzz.__main__ import CORPUS
from tests.fuzz.targets import TARGETS, tags_of

CASES = sorted((path.parent.name, path.name) for path in CORPUS.glob("*/*"))


def test_every_target_has_seeds() -> None:
    assert {target for target, _ in CASES} == set(TARGETS)


@pytest.mark.parametrize(("target", "name"), CASES)
def test_what_was_tried_once_holds(target: str, name: str) -> None:
    data = (CORPUS / target / name).read_bytes()
    TARGETS[target](data)
    # Cut short and damaged, too.
    for cut in range(1, len(data), max(1, len(data) // 8)):
        TARGETS[target](data[:cut])
        TARGETS[target](data[:cut] + bytes([data[cut] ^ 0xFF]) + data[cut + 1 :])


def test_the_seeds_reach_what_they_are_for() -> None:
    assert len(tags_of((CORPUS / "flv" / "plain").read_bytes())) > 10
