"""The data card: what it says is what the pairs are."""

import re
from collections import Counter
from dataclasses import replace
from statistics import mean, median

from hypothesis import given
from hypothesis import strategies as st

from common.preference import PreferencePair, user_prompt
from tree.pairs.data_card import SplitCounts, data_card
from tree.pairs.extraction import REASONS

PAIRS = st.builds(
    PreferencePair,
    prompt=st.integers(0, 30_000).map(lambda length: user_prompt("x" * length)),
    chosen=st.just("SELECT 1"),
    rejected=st.just("SELECT 2"),
    question_id=st.integers(0, 5),
    db_id=st.sampled_from(["shop", "store", "odd|name"]),
    chosen_dist=st.integers(0, 1),
    rejected_dist=st.none() | st.integers(2, 12),
    relation=st.sampled_from(["parent", "child", "sibling"]),
    rejected_outcome=st.sampled_from(["ok", "empty", "error", "timeout", ""]),
    difficulty=st.sampled_from(["", "simple", "moderate", "challenging"]),
)


def counts_of(pairs: list[PreferencePair]) -> SplitCounts:
    counts = SplitCounts()
    for pair in pairs:
        counts.add(pair)
    return counts


def tables(card: str) -> dict[str, dict[str, list[str]]]:
    """Heading -> first cell -> the other cells."""
    found = {}
    for part in card.split("\n## "):
        heading, _, body = part.partition("\n")
        lines = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in body.splitlines() if line.startswith("| ")]
        found[heading] = {name.replace("\\|", "|"): cells for name, *cells in lines[2:]}
    return found


@given(st.lists(PAIRS, min_size=1, max_size=30), st.lists(PAIRS, min_size=1, max_size=30))
def test_every_table_agrees_with_the_pairs(train, test):
    dropped = dict(zip(REASONS, (3, 0, 12, 5), strict=True))
    found = tables(data_card({"train": counts_of(train), "test": counts_of(test)}, dropped))
    totals, *groups, left_out = found.values()
    assert len(groups) == 7
    for group in groups:
        for place, side in enumerate((train, test)):
            assert sum(int(cells[place]) for cells in group.values()) == len(side)
    for place, side in enumerate((train, test)):
        per_question = Counter(pair.question_id for pair in side).values()
        assert [cells[place] for cells in totals.values()] == [
            str(len(side)),
            str(len(per_question)),
            str(len({pair.db_id for pair in side})),
            f"{mean(per_question):.1f}",
            f"{median(per_question):g}",
            str(max(per_question)),
        ]
        for db_id, count in Counter(pair.db_id for pair in side).items():
            assert found["Database"][db_id][place] == str(count)
        right = sum(pair.chosen_dist == 0 for pair in side)
        assert found["Chosen query"].get("right", ["0", "0"])[place] == str(right)
        for name, cells in found["Length of the prompt (characters)"].items():
            low, high = map(int, name.split(" to "))
            assert int(cells[place]) == sum(low <= len(pair.prompt[0].content) <= high for pair in side)
    assert list(left_out.values()) == [["3"], ["0"], ["12"], ["5"]]


def test_the_card_is_for_people():
    pair = PreferencePair(user_prompt("x" * 4210), "SELECT 1", "SELECT 2", 1, "shop", chosen_dist=0, relation="parent")
    train = [replace(pair, rejected_dist=distance, rejected_outcome="ok") for distance in (None, 10, 2)]
    card = data_card({"train": counts_of(train), "test": counts_of(train[:1])}, {"fragile": 4})
    assert card.startswith("# Preference pairs\n\n|  | train | test |\n| :--- | ---: | ---: |\n| pairs | 3 | 1 |\n")
    found = tables(card)
    gaps = found["Distance of the rejected query minus that of the chosen one (revisions)"]
    assert list(gaps.items()) == [("2", ["1", "0"]), ("10", ["1", "0"]), ("never", ["1", "1"])]
    assert found["Difficulty of the question"] == {"not given": ["3", "1"]}
    assert found["Length of the prompt (characters)"] == {"4210 to 4210": ["3", "1"]}
    assert "| fragile: rests on a query that is right only by coincidence | 4 |" in card


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=30))
def test_a_histogram_has_about_ten_steps_of_a_round_width(lengths):
    pairs = [
        PreferencePair(user_prompt("x" * length), "SELECT 1", "SELECT 2", 1, chosen_dist=0, rejected_dist=1)
        for length in lengths
    ]
    card = data_card({"train": counts_of(pairs)}, {})
    steps = tables(card)["Length of the prompt (characters)"]
    assert len(steps) <= 11
    widths = {int(name.split(" to ")[1]) - int(name.split(" to ")[0]) + 1 for name in steps}
    assert len(widths) == 1 and str(widths.pop()).rstrip("0") in ("1", "2", "5")
