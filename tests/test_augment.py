"""Changed copies of training records: the text stays in them, the label stays with them."""

import random
from collections import Counter

import pytest

from severity_clf.records import Record
from training.augment import FAMILIES, augmented, joined

TEXT = "Put the kettle on. Warm the pot first. Then wait four minutes before you pour the tea for everybody at table."
FILL = "The river rises in the hills and reaches the sea after two hundred miles. Barges carried stone along it."
RECORDS = [
    Record(
        f"r/{number}", f"{TEXT} ({number})", {"overall": (number % 2, 4 * (number % 2))}, f"g{number}", "made", "Tea?"
    )
    for number in range(200)
]


def test_copies_keep_label_group_source_and_prompt_and_have_ids_of_their_own():
    copies = augmented(RECORDS, 0.5, [FILL])
    assert len(copies) == 100
    assert len({copy.id for copy in copies}) == 100
    known = {record.id: record for record in RECORDS}
    for copy in copies:
        record = known[copy.id.split("+")[0]]
        assert (copy.labels, copy.group, copy.source, copy.prompt) == (
            record.labels,
            record.group,
            record.source,
            record.prompt,
        )
        assert copy.output != record.output


def test_the_same_seed_gives_the_same_copies_and_another_seed_others():
    assert augmented(RECORDS, 0.3, [FILL]) == augmented(RECORDS, 0.3, [FILL])
    assert augmented(RECORDS, 0.3, [FILL]) != augmented(RECORDS, 0.3, [FILL], seed=1)


def test_joined_records_are_long_harmless_and_their_own_groups():
    harmless = [record for record in RECORDS if record.labels["overall"] == (0, 0)]
    made = joined(harmless, 30, random.Random(1))
    assert made == joined(harmless, 30, random.Random(1))
    assert {record.labels["overall"] for record in made} == {(0, 0)}
    assert len({record.group for record in made}) == len({record.id for record in made}) == 30
    assert all(len(record.output) > len(TEXT) and record.output.startswith(TEXT) for record in made)


def test_no_records_or_no_part_gives_no_copies():
    assert augmented([], 0.5, [FILL]) == augmented(RECORDS, 0.0, [FILL]) == []


@pytest.mark.parametrize("family", sorted({family.__name__ for family in FAMILIES}))
def test_a_family_changes_the_text_and_keeps_its_words(family):
    change = {one.__name__: one for one in FAMILIES}[family]
    words = Counter(TEXT.lower().split())
    for seed in range(40):
        changed = change(TEXT, FILL, random.Random(seed))
        kept = sum((words & Counter(changed.lower().replace('"', " ").split())).values())
        assert kept >= len(words) // 3, changed
        if family in ("refused", "disclaimed", "polite", "staged", "padded"):
            assert changed != TEXT
            assert kept >= sum(words.values()) - 1
    assert any(change(TEXT, FILL, random.Random(seed)) != TEXT for seed in range(5))


def test_text_with_braces_and_one_word_texts_survive_every_family():
    for text in ("{x} {} {{0}}", "tea", "a", "ab cd"):
        for change in FAMILIES:
            for seed in range(30):
                assert change(text, "", random.Random(seed)).strip()
