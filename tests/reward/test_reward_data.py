"""Preference files of this project and of other origin, as questions with candidates."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import InputError
from common.preference import OWN_COLUMNS, PreferencePair, Turn, read_pairs, user_prompt
from reward.batches import question_rows
from reward.data import (
    contradictory_pairs,
    group_by_prompt,
    repeated_pairs,
    split_by_database,
    split_by_question,
)
from reward.metrics import grouped_metrics, pair_metrics
from reward.report import validation_warnings
from reward.tokens import IDENTICAL, TOO_LONG, encode, load_tokenizer, tokenize

USER = {"role": "user", "content": "How many products?"}
SYSTEM = {"role": "system", "content": "You write SQL."}
GOOD = {"role": "assistant", "content": "SELECT COUNT(*) FROM product"}
BAD = {"role": "assistant", "content": "SELECT 1"}


def load(tmp_path, *rows):
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    return read_pairs(tmp_path / "pairs.json")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": USER["content"], "chosen": GOOD["content"], "rejected": BAD["content"]},
        {"prompt": USER["content"], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
    ids=["explicit", "implicit", "both", "text", "text and conversation"],
)
def test_every_form_of_a_preference_is_the_same_pair(tmp_path, row):
    [pair] = load(tmp_path, row)
    assert pair.prompt == (Turn("user", USER["content"]),)
    assert (pair.chosen, pair.rejected) == (GOOD["content"], BAD["content"])
    assert (pair.question_id, pair.relation, pair.db_id, pair.chosen_dist) == (None, "", "", None)


def test_tokens_of_a_longer_conversation_are_those_of_trl(tmp_path, tiny_model):
    from trl.data_utils import _tokenize

    tokenizer = load_tokenizer(tiny_model)
    conversation = [SYSTEM, USER, BAD, USER]
    [pair] = load(tmp_path, {"prompt": conversation, "chosen": [GOOD], "rejected": [BAD]})
    assert encode(tokenizer, pair.prompt, [pair.chosen]) == [_tokenize(tokenizer, [*conversation, GOOD])["input_ids"]]


def test_pairs_of_one_prompt_are_one_question_wherever_they_stand(tmp_path):
    other = {"role": "assistant", "content": "SELECT 2"}
    rows = [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [other]},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    ]
    first, second = group_by_prompt(load(tmp_path, *rows))
    assert first.candidates == (GOOD["content"], BAD["content"], other["content"])
    assert first.places == [(0, 1), (0, 2), (0, 1)]  # a pair that stands twice counts twice, as in TRL
    assert second.places == [(0, 1)]
    train, held_out = split_by_question(load(tmp_path, *rows), 0.5, 0)
    assert {len(train), len(held_out)} == {1, 3}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": [USER], "chosen": [GOOD]}, "no 'rejected'"),
        ({"prompt": [USER], "chosen": 3, "rejected": [BAD]}, "'chosen' is int"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [{"role": "assistant", "content": " "}]}, "rejected must be"),
        ({"prompt": [USER], "chosen": ["SELECT 1"], "rejected": [BAD]}, "chosen must be"),
        ({"prompt": [USER], "chosen": [USER], "rejected": [BAD]}, "the last message must be the assistant's"),
        ({"prompt": {}, "chosen": [GOOD], "rejected": [BAD]}, "'prompt' is dict"),
        ({"prompt": [], "chosen": [GOOD], "rejected": [BAD]}, "prompt must be"),
        ({"prompt": "", "chosen": [GOOD], "rejected": [BAD]}, "prompt must be"),
        ({"prompt": [USER], "chosen": None, "rejected": [BAD]}, "'chosen' is null"),
        ({"prompt": [USER], "chosen": [{"role": "assistant", "content": None}], "rejected": [BAD]}, "chosen must be"),
        ({"prompt": [USER], "chosen": [{"role": None, "content": "x"}], "rejected": [BAD]}, "chosen must be"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "one conversation"),
        ({"chosen": [USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "one conversation"),
    ],
)
def test_rows_that_are_no_preference(tmp_path, row, words):
    with pytest.raises(InputError, match=f"pairs.json: row 1.*{words}"):
        load(tmp_path, {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, row)


OPTIONAL = tuple(OWN_COLUMNS)


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_null_and_nan_are_as_missing(tmp_path, nothing):
    row = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    [bare, same] = load(tmp_path, row, row | dict.fromkeys(OPTIONAL, nothing))
    assert same == bare and bare.question == bare.prompt
    conversation = {"chosen": [USER, GOOD], "rejected": [USER, BAD]}
    assert load(tmp_path, conversation | {"prompt": nothing})[0] == bare


def test_ids_and_distances_that_pandas_made_floats(tmp_path):
    row = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD], "question_id": 3.0, "chosen_dist": 0.0}
    [one, other] = load(tmp_path, row | {"rejected_dist": 2.0}, row | {"rejected_dist": float("nan")})
    assert repr((one.question_id, one.chosen_dist, one.rejected_dist)) == "(3, 0, 2)"
    assert other.rejected_dist is None


@pytest.mark.parametrize(
    "columns",
    [
        *({name: wrong} for name in OPTIONAL for wrong in ([1], {}, True, 0.5)),
        *({name: "1"} for name, kind in OWN_COLUMNS.items() if kind is not str),
        *({name: 2} for name, kind in OWN_COLUMNS.items() if kind is str),
        {"question_id": 2**63},
        {"chosen_dist": -1},
        {"rejected_dist": -1},
        {"relation": "half \ud83d"},
        {"unknown": "half \ud83d"},
    ],
)
def test_columns_of_another_type_are_named(tmp_path, columns):
    row = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    with pytest.raises(InputError, match=f"pairs.json: row 1: '{next(iter(columns))}' "):
        load(tmp_path, row, row | columns)


def test_json_lines_hold_pairs_too(tmp_path):
    row = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(row)}\n\n{json.dumps(row)}\n")
    assert read_pairs(path) == load(tmp_path, row, row)


def test_rows_for_the_trainers_hold_the_tokens_of_each_candidate(tmp_path, tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    long = {"role": "assistant", "content": "SELECT 1" + " + 1" * 99}
    row = {"chosen_dist": 0, "rejected_dist": 1, "relation": "child", "prompt": [USER], "chosen": [GOOD]}
    pairs = load(tmp_path, row | {"rejected": [long]}, row | {"rejected": [BAD]})
    whole = encode(tokenizer, pairs[0].prompt, [turn["content"] for turn in (GOOD, BAD)])
    tokenized = tokenize(group_by_prompt(pairs), tokenizer, max_length=max(map(len, whole)))
    [question] = question_rows(tokenized, ["", "child"])
    assert [question["prefix"] + suffix for suffix in question["suffixes"]] == whole
    assert (question["pairs"], question["relations"]) == ([(0, 1)], [1])
    assert tokenize(group_by_prompt(pairs), tokenizer, max_length=5) == []


def test_a_conversation_that_the_template_refuses(tmp_path, tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = "{{ raise_exception('no system here') }}"
    with pytest.raises(InputError, match="system.*no system here"):
        encode(tokenizer, (Turn("system", "x"), Turn("user", "y")), ["SELECT 1"])


def test_ties_count_as_half_and_only_equal_rewards_are_ties():
    assert pair_metrics([1.0, 0.0, -1e-9, 1e-9]) == {"pairs": 4, "accuracy": 0.625, "mean_margin": 0.25, "ties": 1}
    groups = grouped_metrics(["b", "a", "b"], [1.0, -1.0, 0.0])
    assert list(groups) == ["a", "b"] and [group["accuracy"] for group in groups.values()] == [0.0, 0.75]


# --- the split for validation ---------------------------------------------------------------------------------------


def preference(prompt, question_id=None, db_id="", chosen="a", rejected="b") -> PreferencePair:
    return PreferencePair(user_prompt(str(prompt)), chosen, rejected, question_id, db_id)


few = st.integers(0, 9)
preferences = st.lists(
    st.builds(preference, few, st.none() | few, st.sampled_from(["", "x", "y", "z"])), min_size=1, max_size=25
)


@given(preferences, st.sampled_from([0.1, 0.3, 0.5]), st.integers(0, 3))
def test_no_question_and_no_prompt_is_on_both_sides(pairs, fraction, seed):
    """Ids that share a prompt, and prompts that share an id, stay together, also over several others."""
    assert split_by_question(pairs, 0.0, seed) == (pairs, [])
    try:
        train, held_out = split_by_question(pairs, fraction, seed)
    except InputError:
        return
    assert train and held_out and Counter(train + held_out) == Counter(pairs)
    assert not {pair.prompt for pair in train} & {pair.prompt for pair in held_out}
    ids = [{pair.question_id for pair in part} - {None} for part in (train, held_out)]
    assert not ids[0] & ids[1]
    again = split_by_question(pairs[::-1], fraction, seed)
    assert [Counter(part) for part in again] == [Counter(train), Counter(held_out)]


def test_ids_and_prompts_that_hang_together_are_one_question():
    """Question 1 has prompts a and b, question 2 b and c, question 3 only c: one chain, so nothing can be held out."""
    chain = [preference(prompt, number) for prompt, number in (("a", 1), ("b", 1), ("b", 2), ("c", 2), ("c", 3))]
    with pytest.raises(InputError, match="1 question"):
        split_by_question(chain, 0.5, 0)
    for seed in range(9):
        train, held_out = split_by_question([*chain, preference("d", 4)], 0.25, seed)
        assert {len(train), len(held_out)} == {5, 1}


@given(
    st.lists(st.tuples(few, st.integers(0, 400)), min_size=30, max_size=300),
    st.sampled_from([0.1, 0.2, 0.3]),
    st.integers(0, 3),
)
def test_whole_databases_are_held_out_where_they_fit(rows, fraction, seed):
    pairs = [preference(f"{db_id} {prompt}", prompt + 1000 * db_id, f"db{db_id}") for db_id, prompt in rows]
    split = split_by_database(pairs, fraction, seed)
    sizes = Counter(pair.db_id for pair in set(pairs))
    prompts = len({pair.prompt for pair in pairs})
    if split is None:
        one_at_a_time = max(sizes.values()) <= fraction * prompts / 2
        assert len(sizes) < 5 or not one_at_a_time
        return
    train, held_out = split
    assert Counter(train + held_out) == Counter(pairs) and len(sizes) >= 5
    assert not {pair.db_id for pair in train} & {pair.db_id for pair in held_out}
    share = len({pair.prompt for pair in held_out}) / prompts
    assert fraction / 2 <= share <= fraction * 1.5
    assert split_by_database(pairs[::-1], fraction, seed)[0] == train[::-1]


def test_databases_that_cannot_be_held_out_whole():
    pairs = [preference(number, number, f"db{number % 10}") for number in range(100)]
    train, held_out = split_by_database(pairs, 0.1, 0)
    assert len(held_out) == 10 and len({pair.db_id for pair in held_out}) == 1
    assert split_by_database(pairs, 0.0, 0) is None
    assert split_by_database([*pairs, preference("of another origin", 100)], 0.1, 0) is None
    few_databases = [preference(number, number, f"db{number % 4}") for number in range(100)]
    assert split_by_database(few_databases, 0.25, 0) is None
    bound = [*pairs, *(preference(0, number, f"db{number % 10}") for number in range(9))]  # one prompt in nine of them
    assert split_by_database(bound, 0.1, 0) is None


# --- pairs that teach nothing, or against each other ----------------------------------------------------------------


def test_identical_pairs_are_dropped_as_the_template_sees_them(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    pairs = [
        preference("p", chosen="SELECT 1", rejected="SELECT 1"),
        preference("p", chosen="SELECT 1", rejected="SELECT 1 "),
        preference("p", chosen="SELECT 1", rejected="SELECT 2"),
        preference("q", chosen="SELECT 3", rejected="SELECT 3"),
        preference("p", chosen="SELECT 1", rejected="SELECT " + "1, " * 200),
    ]
    for template, identical, kept in ((tokenizer.chat_template, 2, 2), (TRIMMING, 3, 1)):
        tokenizer.chat_template, dropped = template, Counter()
        [question] = tokenize(group_by_prompt(pairs), tokenizer, 200, dropped)
        assert dropped == {IDENTICAL: identical, TOO_LONG: 1}
        assert len(question.question.pairs) == kept and len(question.suffixes) == kept + 1


TRIMMING = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>{% endfor %}"


def test_repeated_and_contradictory_pairs_are_counted():
    one, other = preference("p", chosen="a", rejected="b"), preference("p", chosen="b", rejected="a")
    elsewhere = preference("q", chosen="b", rejected="a")
    assert repeated_pairs([one, one, one, elsewhere]) == 2 and contradictory_pairs([one, one, elsewhere]) == 0
    assert repeated_pairs([one, other]) == 0 and contradictory_pairs([one, other, one, elsewhere]) == 3


# --- the kept model -------------------------------------------------------------------------------------------------


def kept(loss: float, accuracy: float) -> dict:
    return {"validation_loss": loss, "validation_accuracy": accuracy}


@pytest.mark.parametrize(
    ("differences", "metrics", "words"),
    [
        ([], {}, []),
        ([1.0, 2.0], kept(0.2, 1.0), []),
        ([0.0, 0.0], kept(0.6931, 0.5), ["the same reward"]),
        ([1.0, -3.0, 1.0], kept(0.9, 0.67), ["loss 0.9000, at the start 0.6931"]),
        ([0.1, -0.1], kept(0.69, 0.5), ["accuracy 0.5000 (2 pairs)"]),
        ([-1.0, -3.0], kept(2.2, 0.0), ["loss 2.2000, at the start 0.6931", "accuracy 0.0000"]),
    ],
)
def test_what_speaks_against_the_kept_model_is_said_with_figures(differences, metrics, words):
    history = [{"step": 0, "eval_loss": 0.6931}, {"step": 1, "loss": 0.69}, {"step": 4, "eval_loss": 9.0}]
    found = validation_warnings(differences, metrics, history)
    assert len(found) == len(words) and all(word in doubt for word, doubt in zip(words, found, strict=True))
