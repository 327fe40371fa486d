"""Headers of prompt files in words, also those with entries that are missing or strange."""

from dataclasses import replace
from types import SimpleNamespace

from iptkit.course import prompt_words
from iptkit.scores.evaluation import Score
from iptkit.tasks import suites


def test_a_header_without_tasks_or_scores_is_shown_as_far_as_it_goes():
    assert prompt_words.header({"method": "SoftPrompt", "backbone": "m", "fingerprint": "f"}) == (
        "method        SoftPrompt\nmodel         m (fingerprint f)"
    )
    about = {
        "tasks": ["a", "b"],
        "scores": [0.5, "x"],
        "before": [None],
        "data": [{"labels": list("abcdefgh")}],
    }
    table = prompt_words.header(about).splitlines()[-3:]
    assert table[1].split() == ["a", "-", *"a, b, c, d, e, f, ... (8)".split(), "-", "-", "0.500"]
    assert table[2].split() == ["b", "-", "-", "-", "-", "-"]


def test_a_header_shows_the_score_with_its_interval_and_the_score_before():
    score = {"metric": "accuracy", "score": 0.75, "low": 0.5, "high": 0.9}
    text = prompt_words.header({"tasks": ["a"], "scores": [score], "before": [0.25], "sites": [[1, 2]]})
    assert "attentions    1" in text and text.endswith("0.250   accuracy 0.750 [0.500, 0.900]")


def test_a_prompt_that_beats_the_commonest_answer_only_by_chance_gets_a_note():
    (task,) = suites.load_suite("tiny", only=["tiny-mood"])
    score = Score("tiny-mood", "accuracy", 0.6, 0.5, 0.7, 20, 0.5, -0.7)

    def said(**changes):
        made = SimpleNamespace(scores=[replace(score, **changes)], before=None)
        return prompt_words.tuned(made, [replace(task, majority=0.55)], 1.0, "a.safetensors", ["a.jsonl"])

    assert "tiny-mood: the interval does not lie above the score of the commonest answer (0.55)" in said()
    assert "commonest answer" not in said(low=0.56)
    assert "commonest answer" not in said(metric="token_f1")
