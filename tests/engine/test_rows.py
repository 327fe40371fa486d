import random

import pytest
import torch

from iptkit.engine.batches import similar_batches, similar_rows
from iptkit.engine.layouts import LAYOUTS, PROMPT_ID, Layout
from iptkit.engine.rows import pack, shared_prefixes

ANSWERS = [((21, 22, 23), (24,)), ((25, 26),)]
CPU = torch.device("cpu")


def test_answers_stand_side_by_side_behind_the_prompt():
    packed = pack([(PROMPT_ID, PROMPT_ID)] * 2, ANSWERS, CPU)
    assert packed.ids.tolist() == [[0, 0, 21, 22], [0, 0, 25, 0]], "the last token of an answer is never read"
    assert packed.segments.tolist() == [[0, 0, 1, 1], [0, 0, 1, -1]]
    assert packed.offsets.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0]]
    assert packed.answer_tokens.tolist() == [[3, 1], [2, 0]] and packed.num_answers == 2
    assert packed.scored_at.tolist() == [1, 2, 3, 5, 6]
    found = torch.stack([packed.target_answer, packed.target_token, packed.target_state], 1).tolist()
    assert [tuple(line) for line in sorted(found)] == [
        (0, 21, 0),
        (0, 22, 1),
        (0, 23, 2),
        (1, 24, 0),
        (2, 25, 3),
        (2, 26, 4),
    ]


def test_prompt_vectors_stand_where_the_line_has_slots():
    packed = pack([(PROMPT_ID, 11, 12), (13, PROMPT_ID)], ANSWERS, CPU)
    assert packed.prompt_at.tolist() == [0, packed.ids.shape[1] + 1]
    assert packed.ids.tolist() == [[0, 11, 12, 21, 22], [13, 0, 25, 0, 0]]
    assert packed.scored_at.tolist() == [2, 3, 4, 6, 7]


def test_every_answer_starts_at_the_same_position_and_is_blind_to_the_others():
    packed = pack([(PROMPT_ID, PROMPT_ID)], [((21, 22, 23), (24, 25), (26, 27))], CPU)
    assert packed.segments.tolist() == [[0, 0, 1, 1, 2, 3]] and packed.offsets.tolist() == [
        [0, 1, 2, 3, 2, 2]
    ]
    seen = [[j for j in range(6) if packed.visible[0, i, j]] for i in range(6)]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [0, 1, 5]]


# ---- layouts -------------------------------------------------------------------------------------
def words(text):
    return tuple(map(ord, text))


def test_what_stands_left_of_the_first_vector_is_kept_apart():
    line = Layout(("ab", "{text}", 2, "c", 1)).line((7, 8), 3, words)
    assert line == ((97, 98, 7, 8), (PROMPT_ID, PROMPT_ID, 99, PROMPT_ID))
    assert Layout.of(LAYOUTS[0]).line((7, 8), 2, words) == ((7, 8), (PROMPT_ID, PROMPT_ID))
    assert Layout.of(LAYOUTS[1]).line((7, 8), 2, words) == ((), (PROMPT_ID, PROMPT_ID, 7, 8))
    assert Layout.of(LAYOUTS[0]).line((7, 8), 0, words) == ((), (7, 8))


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ((3, " It is"), "0 pieces '{text}'"),
        (("{text}", 3, "{text}"), "2 pieces"),
        (("{text}", " It is"), "give numbers"),
        (("{text}", "{prompt}", 3), "give numbers"),
        (("{text}", "{prompt}", "{prompt}"), "give numbers"),
        (("{text}", 3, 0), "at least 1"),
        (("{text}", 3, ""), "is empty"),
    ],
)
def test_a_layout_that_cannot_be_used_says_why(pieces, told):
    with pytest.raises(ValueError, match="for example") as error:
        Layout(pieces)
    assert told in str(error.value)


def test_a_layout_has_places_for_its_own_number_of_vectors():
    with pytest.raises(ValueError, match="the prompt has 4 vectors, but the layout .* has places for 3"):
        Layout((1, "{text}", 2)).line((7,), 4, words)


# ---- batches -------------------------------------------------------------------------------------
def test_similar_batches_hold_every_row_once_within_the_limit_and_pad_little():
    sizes = [5, 60, 7, 6, 58, 30, 6, 33, 5, 8] * 40
    batches = similar_batches(sizes, 512)
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    padded = [max(sizes[i] for i in batch) * len(batch) for batch in batches]
    assert max(padded) <= 512
    assert sum(padded) < 1.2 * sum(sizes), "one batch of all would be padded to 2.8 times its tokens"


def test_a_row_longer_than_a_batch_is_a_batch_of_its_own_and_few_rows_stay_together():
    assert similar_batches([9, 2000, 8], 512) == [[1], [0, 2]]
    assert similar_batches([9, 3, 12], 512) == [[2, 0, 1]] and similar_batches([], 512) == []


def tokens_read(lines, sizes):
    """Those of each line that are its own, and each prefix once."""
    own = sum(len(line) - size for line, size in zip(lines, sizes, strict=True))
    return own + sum(map(len, {line[:size] for line, size in zip(lines, sizes, strict=True)}))


def test_shared_prefixes_are_shared_and_leave_a_token():
    drawn = random.Random(0)
    some = 0
    for _ in range(50):
        lines = [tuple(drawn.choice((1, 2)) for _ in range(drawn.randint(1, 9))) for _ in range(8)]
        sizes = shared_prefixes(lines, least=2)
        for i, size in enumerate(sizes):
            others = [lines[j][:size] for j in range(len(lines)) if j != i and sizes[j] == size]
            assert size == 0 or (2 <= size < len(lines[i]) and lines[i][:size] in others)
        assert tokens_read(lines, sizes) <= sum(map(len, lines)), "sharing never reads more"
        some += any(sizes)
    assert some > 40


def test_the_most_useful_prefixes_are_shared():
    texts = [(1, 2, 3, 4, 5), (6, 7, 8, 9)]
    lines = [(*text, *words) for text in texts for words in ((10, 11), (12,), (10, 12))]
    assert shared_prefixes(lines) == [5, 5, 5, 4, 4, 4]
    assert shared_prefixes([(1, 2, 3, 4, 5)]) == [0]
    assert shared_prefixes([(1, 2, 3, 4, 5)] * 2) == [4, 4]
    long = [(*range(35), 100 + k) for k in range(10)]  # a line that shares little must not spoil it
    for stranger in ((0, 1, 2, 3, -5, 7), (0, 1, 2, 3, 999, 7)):
        lines = [stranger, *long]
        assert tokens_read(lines, shared_prefixes(lines)) == 35 + 10 + 6


def test_similar_rows_are_cut_where_padding_would_cost_more_than_a_part():
    drawn = random.Random(0)
    left = sorted(drawn.randrange(4, 90) for _ in range(60))
    new = [drawn.choice([4, 5, 6]) for _ in range(50)] + [20] * 10

    def places(part: slice) -> int:
        rows, longest = part.stop - part.start, max(new[part])
        return rows * longest * (max(left[part]) + longest)

    whole, least = places(slice(0, 60)), 500
    parts = similar_rows(left, new, least)
    assert [i for part in parts for i in range(60)[part]] == list(range(60)) and len(parts) > 2
    assert sum(map(places, parts)) < whole - least * (len(parts) - 1)
    for part in parts:
        cuts = [(slice(part.start, i), slice(i, part.stop)) for i in range(part.start + 1, part.stop)]
        assert all(places(a) + places(b) >= places(part) - least for a, b in cuts), "no cut is left that pays"
    assert similar_rows(left, new, whole) == [slice(0, 60)]
    assert similar_rows([7] * 5, [3] * 5, 0) == [slice(0, 5)] and similar_rows([0], [2], 0) == [slice(0, 1)]
