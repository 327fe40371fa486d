"""Checks of the exercises of lesson 04, P-Tuning v2."""

from __future__ import annotations

import torch

from iptkit.course.exercises.answers import run
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
        f"One layer has 2 n d numbers, keys and values ({numbers} in the tiny model of this check); L layers "
        "have L times as many."
    )
    return outcome.feedback(not problem, problem or praise)


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
