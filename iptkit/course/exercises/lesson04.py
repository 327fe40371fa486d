"""Checks of the exercises of lesson 04, P-Tuning v2."""

from __future__ import annotations

import torch

from iptkit.course.exercises.answers import Case, explained, judge_choice, judge_function, run
from iptkit.course.exercises.feedback import Feedback
from iptkit.engine.prompt import Site
from iptkit.engine.sites import find_sites
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.models import tiny


def check_04_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that makes a deep prompt for the last layer only.

    Args:
      answer: last_layer_prompt(sites, n, generator) -> DeepPrompt of one run with n virtual tokens.
      seed: of the start values.
    """
    sites, n = find_sites(tiny.build("tiny-encoder")[0]), 3 + seed
    outcome = run(answer, {"sites": list(sites), "n": n, "generator": torch.Generator().manual_seed(seed)})
    problem = outcome.problem or _problem(outcome.value, sites, n)
    numbers = 2 * n * sites[0].num_kv_heads * sites[0].head_width
    praise = (
        f"One layer has 2 n d numbers, keys and values: 2 · 8 · 384 = 6,144 in the lesson, {numbers} in the "
        "tiny model of this check. L layers have L times as many."
    )
    hints = {
        "'Site' object is not iterable": "DeepPrompt takes a list of sites, also for one: `sites[-1:]`.",
        "'int' object is not iterable": "`choose` takes a list of layers: `choose(sites, [-1])`.",
    }
    return explained(outcome.feedback(not problem, problem or praise), hints)


def check_04_2(answer: object, seed: int = 0) -> Feedback:
    """Check an attention that sees a prompt.

    Args:
      answer: prompted_attention(q, K, V [heads, length, k], K_P, V_P [heads, n, k]) -> [heads, length, k];
        K_P and V_P are the prompt's.
      seed: of the random input.
    """
    generator = torch.Generator().manual_seed(seed)
    q, K, V = torch.randn(3, 2, 5, 4, generator=generator)
    K_P, V_P = torch.randn(2, 2, 3, 4, generator=generator)
    keys, values = torch.cat([K_P, K], 1), torch.cat([V_P, V], 1)
    scores = q @ keys.transpose(-1, -2) / 2  # width 4, so the root is 2
    apart = _attention(q, K, V) + _attention(q, K_P, V_P)
    mistakes = {
        "This is the attention to the text alone; K_P and V_P have no effect.": _attention(q, K, V),
        "This is the attention to the prompt alone; join keys and values of both along the axis of "
        "positions.": _attention(q, K_P, V_P),
        "This adds two attentions, each with a softmax of its own. Prompt and text share one softmax: join "
        "the keys first.": apart,
        "This is the mean of two attentions. Prompt and text share one softmax: join the keys first.": apart
        / 2,
        "The scores are not divided by sqrt(k).": (2 * scores).softmax(-1) @ values,
        "The scores are divided by k; divide them by sqrt(k).": (scores / 2).softmax(-1) @ values,
        "The softmax is over the queries; each query spreads its weights over the keys, the last axis.": (
            scores.softmax(-2) @ values
        ),
        "The keys have the prompt first, but the values have it last; join both in the same order.": (
            scores.softmax(-1) @ torch.cat([V, V_P], 1)
        ),
        "The softmax is missing; the weights of a query add up to 1.": scores @ values,
    }
    praise = (
        "One softmax over prompt and text. The order of the two does not matter as long as keys and values "
        "have the same one: an attention is a sum over positions."
    )
    arguments = {"q": q, "K": K, "V": V, "K_P": K_P, "V_P": V_P}
    feedback = judge_function(answer, [Case(arguments, _attention(q, keys, values), mistakes)], praise)
    turned = "If you used `.T`: it turns around all axes. Swap the last two only: `keys.transpose(-1, -2)`."
    return explained(feedback, {"The size of tensor a": turned, "Expected size for first two dim": turned})


def check_04_3(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what a prompt of zeros does to an attention.

    Args:
      answer: the letter of the learner's option.
      seed: not used.
    """
    share = (
        "A key of zeros has the score 0, and exp(0) = 1, so it takes part in the softmax. Its value adds "
        "nothing, so what is left is the old output times the share of the weight that stays on the text."
    )
    return judge_choice(
        answer,
        "c",
        {
            "a": f"Zeros are not nothing: only a score of -infinity would have no weight. {share}",
            "b": f"The score of a key of zeros is q · 0 = 0, whatever q is; it is not -infinity. {share}",
            "c": f"{share} Zeros have a second fault as a start: all n positions would get the same gradient "
            "and stay equal. So a deep prompt starts at random numbers.",
            "d": f"The values of the prompt are zeros, so they cannot turn the output. {share}",
        },
    )


def check_04_4(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what an interval that holds 0 says.

    Args:
      answer: the letter of the learner's option.
      seed: not used.
    """
    return judge_choice(
        answer,
        "d",
        {
            "a": "The interval also holds +0.030, so deep prompts may be ahead.",
            "b": 'The interval also holds -0.100: fine-tuning may be clearly ahead. "Not significant" is '
            "not the same as equal.",
            "c": "The number of trained parameters is a cost. It says nothing about the score.",
            "d": "The data allow both. To decide it, measure more tasks: the interval is over tasks, so more "
            "test examples or steps on the same ones help less.",
        },
    )


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


def _problem(value: object, sites: list[Site], n: int) -> str:
    if isinstance(value, list) and all(isinstance(site, Site) for site in value):
        return "These are the sites; make the prompt for them: DeepPrompt(1, some_sites, n, generator)."
    if not isinstance(value, DeepPrompt):
        return "Your function does not return a DeepPrompt; return DeepPrompt(1, some_sites, n, generator)."
    runs, length, size = value.P.shape
    layers = [site.layer for site in value.sites]
    if layers == [site.layer for site in sites]:
        return "This prompt is for all layers; choose the last one before you make it."
    if layers == [sites[0].layer]:
        return "This is the first layer, index 0; the last one has index -1."
    if layers == [site.layer for site in sites[:-1]]:
        return "These are all layers but the last: `sites[:-1]` leaves the last one out."
    if value.sites != sites[-1:]:
        return f"This prompt is for the layers {layers}; it has to be for the last one only."
    if runs != 1 or length != n:
        return f"The prompt has {runs} runs and {length} virtual tokens; make it for 1 run and n = {n}."
    return ""
