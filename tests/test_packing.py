import torch

from iptkit.engine import Row
from iptkit.packing import pack

ROWS = [Row((11, 12), ((21, 22, 23), (24,))), Row((13,), ((25, 26),))]


def test_answers_stand_side_by_side_behind_the_prompt():
    packed = pack(ROWS, 2, False, torch.device("cpu"))
    assert packed.ids.tolist() == [[0, 0, 21, 22], [0, 0, 25, 0]], "the last token of an answer is never read"
    assert packed.segments.tolist() == [[0, 0, 1, 1], [0, 0, 1, -1]]
    assert packed.offsets.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0]]
    assert packed.answer_tokens.tolist() == [[3, 1], [2, 0]] and packed.num_answers == 2
    assert packed.head_index.tolist() == [1, 2, 3, 5, 6]
    found = torch.stack([packed.target_slot, packed.target_token, packed.target_head], 1).tolist()
    assert [tuple(line) for line in sorted(found)] == [
        (0, 21, 0),
        (0, 22, 1),
        (0, 23, 2),
        (1, 24, 0),
        (2, 25, 3),
        (2, 26, 4),
    ]


def test_with_text_the_prompt_comes_first():
    packed = pack(ROWS, 1, True, torch.device("cpu"))
    assert packed.ids.tolist() == [[0, 11, 12, 21, 22], [0, 13, 25, 0, 0]]
    assert packed.head_index.tolist() == [2, 3, 4, 6, 7]


def test_every_answer_starts_at_the_same_position_and_is_blind_to_the_others():
    row = Row((11,), ((21, 22, 23), (24, 25), (26, 27)))
    packed = pack([row], 2, False, torch.device("cpu"))
    assert packed.segments.tolist() == [[0, 0, 1, 1, 2, 3]] and packed.offsets.tolist() == [
        [0, 1, 2, 3, 2, 2]
    ]
    seen = [[j for j in range(6) if packed.visible[0, i, j]] for i in range(6)]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [0, 1, 5]]
