"""No evaluation on what an adapter was trained on, unless it is asked for."""

import dataclasses

import pytest

from common.files import InputError, write_json
from common.preference import read_pairs
from common.trained_on import FILE, check_overlap, recorded_result_length, write_trained_on


@pytest.fixture
def pairs(tmp_path, pair_rows):
    write_json(tmp_path / "pairs.json", pair_rows)
    return read_pairs(tmp_path / "pairs.json")


def check(folder, pairs):
    check_overlap(folder, "test.json", {pair.db_id for pair in pairs}, {pair.prompt for pair in pairs})


def test_a_known_database_and_a_known_prompt_are_refused(tmp_path, pairs):
    shop = [pair for pair in pairs if pair.db_id == "shop"]
    store = [pair for pair in pairs if pair.db_id == "store"]
    write_trained_on(tmp_path, shop, {"path": "pairs.json", "sha256": "0"})
    check(tmp_path, store)
    with pytest.raises(InputError, match="test.json.*database 'shop'.*--allow_overlap"):
        check(tmp_path, [*store, shop[0]])
    with pytest.raises(InputError, match="was trained on database 'shop', and on 1 of its 3 prompts; name other data"):
        check(tmp_path, [*store, shop[0]])
    renamed = [dataclasses.replace(pair, db_id="other") for pair in shop[:2]]
    with pytest.raises(InputError, match="1 of its 1 prompts"):
        check(tmp_path, renamed)


def test_how_much_of_a_result_was_read_is_recorded(tmp_path, pairs):
    assert recorded_result_length(tmp_path) == 0  # it does not say
    write_trained_on(tmp_path, pairs, {}, result_length=300)
    assert recorded_result_length(tmp_path) == 300
    for wrong in ('"300"', "-1", "true", "null"):
        (tmp_path / FILE).write_text(f'{{"result_length": {wrong}}}')
        with pytest.raises(InputError, match=f"{FILE}: 'result_length'"):
            recorded_result_length(tmp_path)


def test_pairs_without_a_database_overlap_by_prompt_only(tmp_path, pairs):
    nameless = [dataclasses.replace(pair, db_id="") for pair in pairs]
    write_trained_on(tmp_path, nameless[:2], {})
    check(tmp_path, nameless[2:])
    with pytest.raises(InputError, match="prompts"):
        check(tmp_path, nameless)


def test_an_adapter_that_does_not_say_is_refused(tmp_path, pairs):
    with pytest.raises(InputError, match=f"{FILE}.*--allow_overlap"):
        check(tmp_path, pairs)
    (tmp_path / FILE).write_text('{"databases": 3}')
    with pytest.raises(InputError, match=f"{FILE}.*expected lists"):
        check(tmp_path, pairs)
