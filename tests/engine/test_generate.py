"""`Engine.generate` against transformers' own `generate`, and against plain forward passes without caches."""

import copy
import dataclasses
import functools
from collections import Counter

import pytest
import torch
import transformers
from stock import LAYOUTS, backbone, random_prompts, stock_attention

from iptkit.engine.adapter_hooks import adapters_after, find_blocks
from iptkit.engine.decoding import Sampler, probabilities
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.left_memory import left_memory
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import find_sites, memory_at
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt, deep_from_words
from iptkit.models.backbone import quiet_transformers

PIECES = (2, "{text}", 1, " Answer :")
TEXTS = (
    "What is six plus four ?",
    "I had a sad trip .",
    "Put it in the past : Leo sees a fox .",
    "ten",
    "Ben sees the duck .\nWhat is it about ?",
    "a red fox",
)
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"max_position_embeddings": 64, "initializer_range": 0.3, "num_key_value_heads": 2}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 64}
BART |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "init_std": 0.3}
BART |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 3}
MAKERS = {
    "llama": lambda size: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, **size)),
    "qwen2": lambda size: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL, **size)),
    "gpt2": lambda size: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, **size)
    ),
    "t5": lambda size: transformers.T5ForConditionalGeneration(
        transformers.T5Config(**T5, **size, initializer_factor=3.0)
    ),
    "bart": lambda size: transformers.BartForConditionalGeneration(
        transformers.BartConfig(**BART, **size, forced_eos_token_id=None)
    ),
}
CAUSAL, SEQ2SEQ = ("llama", "qwen2", "gpt2"), ("t5", "bart")
CASES = [(name, layout) for name in CAUSAL for layout in (*LAYOUTS, PIECES)]
CASES += [(name, "prompt-text-answer") for name in SEQ2SEQ]


@functools.cache
def made(name):
    """A tiny random model of a family with the tokenizer of the tiny models, in float64.

    Its end token is a word that it often says: a random model hardly ever says [EOS].
    """
    kind = "seq2seq" if name in SEQ2SEQ else "causal"
    tiny = backbone(f"tiny-{kind}", "float64")
    size = {"vocab_size": len(tiny.tokenizer), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MAKERS[name](size)
    model.config.architectures = [type(model).__name__]
    model = model.double().requires_grad_(False).eval()
    of = {"num_kv_heads": getattr(model.config, "num_key_value_heads", None) or 4, "max_positions": 64}
    found = dataclasses.replace(tiny, name=name, model=model, **of)
    said = Engine(found, layout_of(name)).generate(source_of(found), TEXTS, runs=RUNS, max_new_tokens=12)
    words = Counter(word for text in said for word in text.split()[2:])
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.eos_token = words.most_common(2)[-1][0]
    return dataclasses.replace(found, tokenizer=tokenizer)


RUNS = [1, 0, 2, 2, 1, 0]


def layout_of(name):
    return "prompt-text-answer" if name in SEQ2SEQ else LAYOUTS[0]


def source_of(model, length=3, runs=3):
    return FixedPrompt(random_prompts(model, runs, length, std=2.0))


def tokens(model, text):
    return model.tokenizer(text, add_special_tokens=False).input_ids


def embedded(model, layout, text, prompt):
    """[1, S, d] embeddings of one row, written out piece by piece."""
    named = {LAYOUTS[0]: ("{text}", len(prompt)), LAYOUTS[1]: (len(prompt), "{text}")}
    parts, used = [], 0
    for piece in named.get(layout, layout):
        if isinstance(piece, int):
            parts.append(prompt[used : used + piece])
            used += piece
        else:
            parts.append(model.embedding[tokens(model, piece.replace("{text}", text))])
    return torch.cat(parts)[None]


def transformers_own(model, layout, text, prompt, limit):
    """The text that transformers' own generate gives, for one row."""
    scale = getattr(model.model.get_input_embeddings(), "embed_scale", 1.0)
    with stock_attention(model.model) as plain, torch.no_grad(), quiet_transformers():
        ids = plain.generate(
            inputs_embeds=embedded(model, layout, text, prompt) * scale,
            max_new_tokens=limit,
            do_sample=False,
            num_beams=1,
            eos_token_id=model.eos,
            pad_token_id=0,
        )[0, model.kind == "seq2seq" :]
    return model.tokenizer.decode(ids, skip_special_tokens=True).strip()


# ---- the likeliest tokens ------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "layout"), CASES)
def test_equals_transformers_own_generate(name, layout):
    """Texts of many lengths with different prompts; some continuations end at the limit."""
    model = made(name)
    source, limit = source_of(model), 12
    found = Engine(model, layout).generate(source, TEXTS, runs=RUNS, max_new_tokens=limit)
    assert found == [
        transformers_own(model, layout, text, source.P[run], limit)
        for text, run in zip(TEXTS, RUNS, strict=True)
    ]
    sizes = [len(text.split()) for text in found]
    assert min(sizes) < limit == max(sizes) and len(set(found)) > 3
    again = Engine(model, layout, tokens_per_batch=8).generate(source, TEXTS, runs=RUNS, max_new_tokens=limit)
    assert again == found, "batches make no difference"


@pytest.mark.parametrize("name", ["llama", "gpt2", "bart"])
def test_without_a_source_the_model_continues_the_text_alone(name):
    model = made(name)
    found = Engine(model).generate(None, TEXTS[:3], max_new_tokens=6)
    nothing = model.embedding[:0]
    assert found == [transformers_own(model, LAYOUTS[1], text, nothing, 6) for text in TEXTS[:3]]
    assert found != Engine(model).generate(source_of(model), TEXTS[:3], max_new_tokens=6)


@pytest.mark.model
@pytest.mark.parametrize("layout", [*LAYOUTS, PIECES])
def test_the_real_model_equals_transformers_own_generate(layout):
    model = backbone("smollm2-135m", "float32")
    words = model.embedding[torch.tensor(tokens(model, " the answer is"))]
    texts = ["The capital of France is", "Translate to German: house", "Q: Name three colours.\nA:"]
    found = Engine(model, layout).generate(FixedPrompt(words[None]), texts, max_new_tokens=10)
    assert found == [transformers_own(model, layout, text, words, 10) for text in texts]


def step_by_step(model, logits, limit):
    """The likeliest continuation by whole forward passes, `logits` of the ids so far -> [V]."""
    said = []
    while len(said) < limit and model.eos not in said:
        with torch.no_grad():
            said.append(int(logits(said).argmax()))
    return model.tokenizer.decode(said, skip_special_tokens=True).strip()


@pytest.mark.parametrize("name", [*CAUSAL, *SEQ2SEQ])
def test_deep_prompts_equal_forward_passes_without_a_cache(name):
    """At all attentions: of an encoder-decoder the encoder's, the decoder's and the cross-attention."""
    model = made(name)
    sites = find_sites(model.model)
    source = DeepPrompt(3, sites, [2, 3, 1], torch.Generator().manual_seed(0))
    with torch.no_grad():
        source.P.copy_(torch.randn(source.P.shape, generator=torch.Generator().manual_seed(1)) * 2)
    found = Engine(model, layout_of(name), sites=sites).generate(source, TEXTS, runs=RUNS, max_new_tokens=9)
    for text, run, mine in zip(TEXTS, RUNS, found, strict=True):
        memory = memory_at(sites, source(torch.tensor([run])))

        def logits(said, text=text, memory=memory):
            given = {"input_ids": torch.tensor([[*tokens(model, text), *said]])}
            if model.kind == "seq2seq":
                start = model.model.config.decoder_start_token_id
                given = {"input_ids": torch.tensor([tokens(model, text)])}
                given["decoder_input_ids"] = torch.tensor([[start, *said]])
            with left_memory(memory):
                return model.model(**given, use_cache=False).logits[0, -1]

        assert mine == step_by_step(model, logits, 9)
    plain = Engine(model, layout_of(name)).generate(None, TEXTS, max_new_tokens=9)
    assert sum(a != b for a, b in zip(found, plain, strict=True)) > 3 and len(set(found)) > 2


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_deep_prompts_of_words_equal_transformers_own_generate_behind_these_words(name):
    """Keys and values at the positions -n to -1 act as a cache of n words: rotary positions are relative."""
    model = made(name)
    sites, words = find_sites(model.model), "a red fox"
    source = SoftPrompt(deep_from_words(model, 3, words)[None].double(), "keys_values")
    found = Engine(model, sites=sites).generate(source, TEXTS, max_new_tokens=9)
    for text, mine in zip(TEXTS, found, strict=True):
        with stock_attention(model.model) as plain, torch.no_grad(), quiet_transformers():
            ids = torch.tensor([tokens(model, words)])
            read = plain(input_ids=ids, use_cache=True)
            name = "cache" if "cache" in read else "past_key_values"  # "cache": transformers from 5.24 on
            both = torch.cat([ids, torch.tensor([tokens(model, text)])], 1)
            out = plain.generate(
                both, **{name: read[name]}, max_new_tokens=9, do_sample=False, eos_token_id=model.eos,
                pad_token_id=0, attention_mask=torch.ones_like(both),
            )  # fmt: skip
        assert mine == model.tokenizer.decode(out[0, both.shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("name", CAUSAL)
def test_adapters_equal_forward_passes_without_a_cache(name):
    model = made(name)
    blocks, generator = find_blocks(model.model), torch.Generator().manual_seed(0)
    drawn = torch.randn(3, len(blocks), 2, 32, 2, generator=generator, dtype=torch.float64)
    source = FixedPrompt(drawn, "adapters")
    found = Engine(model).generate(source, TEXTS, runs=RUNS, max_new_tokens=7)
    for text, run, mine in zip(TEXTS, RUNS, found, strict=True):

        def logits(said, text=text, run=run):
            ids = torch.tensor([[*tokens(model, text), *said]])
            with adapters_after(blocks, drawn[run : run + 1]):
                return model.model(input_ids=ids, use_cache=False).logits[0, -1]

        assert mine == step_by_step(model, logits, 7)
    assert found != Engine(model).generate(None, TEXTS, max_new_tokens=7)


def test_greedy_is_the_first_line_of_generate():
    model = made("llama")
    engine, source = Engine(model), source_of(model)
    rows = [engine.words.tokens(text) for text in TEXTS]
    prompt = source(torch.tensor(RUNS))
    said = engine.greedy(prompt, [engine._question(ids) for ids in rows], [9] * 6)
    assert said == engine.generate(source, TEXTS, runs=RUNS, max_new_tokens=9)


# ---- where a continuation ends -------------------------------------------------------------------
@pytest.mark.parametrize("name", ["llama", "bart"])
def test_a_string_stops_its_own_row_and_is_cut_off(name):
    model = made(name)
    engine, source = Engine(model), source_of(model)
    whole = engine.generate(source, TEXTS, runs=RUNS, max_new_tokens=9)
    first, second = whole[0].split()[3], whole[-1].split()[2]
    stop = (first, second[:-1])  # a word, and a part of one
    found = engine.generate(source, TEXTS, runs=RUNS, max_new_tokens=9, stop=stop)
    for text, cut in zip(whole, found, strict=True):
        places = [text.find(one) for one in stop if one in text]
        assert cut == text[: min(places, default=len(text))].strip()
    assert found[0] != whole[0] and found[-1] != whole[-1]
    assert engine.generate(source, TEXTS[:1], runs=1, max_new_tokens=9, stop=first) == found[:1]


def test_a_stopped_row_is_not_computed_any_further():
    model = made("llama")
    engine, source, sizes = Engine(model), source_of(model), []
    (whole,) = engine.generate(source, TEXTS[:1], max_new_tokens=9)
    hidden = engine.forward.hidden
    engine.forward.hidden = lambda *given: sizes.append(given[0].shape[0]) or hidden(*given)
    engine.generate(source, TEXTS[:1], max_new_tokens=9, stop=whole.split()[1])
    assert len(sizes) <= 2


def test_a_special_token_as_a_stop_ends_a_continuation():
    """Decoded texts do not show it."""
    model = made("llama")
    engine, source = Engine(model), source_of(model)
    said = engine.generate(source, TEXTS, runs=RUNS, max_new_tokens=9)
    place = max(range(len(said)), key=lambda i: len(said[i].split()))
    whole, text, run = said[place], TEXTS[place], RUNS[place]
    word = whole.split()[4]
    model.tokenizer.sep_token, before = word, model.tokenizer.sep_token
    try:
        (found,) = Engine(model).generate(source, [text], runs=run, max_new_tokens=9, stop=[word])
    finally:
        model.tokenizer.sep_token = before
    assert found == whole[: whole.index(word)].strip()


@pytest.mark.model
def test_the_real_model_goes_on_after_a_line_break():
    model = backbone("smollm2-135m", "float32")
    engine = Engine(model)
    texts = ["A list of colours:\n- red\n- blue\n-"]
    (whole,) = engine.generate(None, texts, max_new_tokens=12)
    assert whole.count("\n") > 1 and not whole[0].isspace()
    assert engine.generate(None, texts, max_new_tokens=12, stop="\n") == [whole.split("\n")[0].strip()]


# ---- drawn tokens --------------------------------------------------------------------------------
def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


DRAWN = {"do_sample": True, "max_new_tokens": 8, "temperature": 1.5}


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bart"])
def test_a_seed_gives_the_same_texts_whatever_the_batches_are(name):
    model = made(name)
    source, layout = source_of(model), layout_of(name)
    found = Engine(model, layout).generate(source, TEXTS, runs=RUNS, **DRAWN, generator=seeded())
    for size in (1, 40):
        engine = Engine(model, layout, tokens_per_batch=size)
        assert engine.generate(source, TEXTS, runs=RUNS, **DRAWN, generator=seeded()) == found
    other = Engine(model, layout).generate(source, TEXTS, runs=RUNS, **DRAWN, generator=seeded(1))
    assert sum(a != b for a, b in zip(found, other, strict=True)) >= 5
    generator = seeded()
    twice = [Engine(model, layout).generate(source, TEXTS, runs=RUNS, **DRAWN, generator=generator)
             for _ in range(2)]  # fmt: skip
    assert twice[0] == found != twice[1], "a generator goes on where it was"


@pytest.mark.parametrize("setting", [{"temperature": 1e-8}, {"top_p": 1e-9}])
def test_cold_or_narrow_sampling_takes_the_likeliest_tokens(setting):
    model = made("llama")
    engine, source = Engine(model), source_of(model)
    given = {**DRAWN, "temperature": 1.0, **setting}
    found = engine.generate(source, TEXTS, runs=RUNS, **given, generator=seeded())
    assert found == engine.generate(source, TEXTS, runs=RUNS, max_new_tokens=8)


def next_words(model, source, text):
    """[V] logits of the first word, by a plain forward pass."""
    with stock_attention(model.model) as plain, torch.no_grad():
        return plain(inputs_embeds=embedded(model, LAYOUTS[0], text, source.P[0])).logits[0, -1]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 1.0), (1.5, 0.6)])
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature, top_p):
    """Pearson's chi-square over the words that are expected at least five times, the others as one."""
    model, count = made("llama"), 4000
    engine, source = Engine(model, tokens_per_batch=1 << 14), source_of(model)
    given = {"do_sample": True, "temperature": temperature, "top_p": top_p, "max_new_tokens": 1}
    said = Counter(engine.generate(source, TEXTS[:1] * count, **given, generator=seeded()))
    logits = next_words(model, source, TEXTS[0]) / temperature
    expected = logits.softmax(-1)
    falling, order = expected.sort(descending=True)
    kept = order[: int((falling.cumsum(-1) < top_p).sum()) + 1] if top_p < 1 else order
    expected = expected[kept] / expected[kept].sum()
    words = [model.tokenizer.decode([i], skip_special_tokens=True).strip() for i in kept.tolist()]
    assert set(said) <= set(words), "nothing outside of the nucleus"
    pairs = [(said[word], p * count) for word, p in zip(words, expected.tolist(), strict=True)]
    often = [pair for pair in pairs if pair[1] >= 5]
    rest = (count - sum(seen for seen, _ in often), count - sum(wanted for _, wanted in often))
    often += [rest] if rest[1] > 1e-6 else []
    chi_square = sum((seen - wanted) ** 2 / wanted for seen, wanted in often)
    free = len(often) - 1
    assert free > 4 and chi_square < free + 4 * (2 * free) ** 0.5
    flat = sum((seen - count / len(often)) ** 2 / (count / len(often)) for seen, _ in often)
    assert flat > 10 * (free + 4 * (2 * free) ** 0.5), "the bound can fail"


def test_the_nucleus_is_the_smallest_set_with_this_probability():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.25, 0.25, 0.25, 0.25]]).double().log()
    sets = {0.2: ([1], [0]), 0.49: ([1], [0, 1]), 0.51: ([1, 3], [0, 1, 2]), 0.89: ([1, 2, 3], [0, 1, 2, 3])}
    for top_p, wanted in sets.items():
        found = probabilities(logits, 1.0, top_p)
        assert tuple(row.nonzero().flatten().tolist() for row in found) == wanted, top_p
        torch.testing.assert_close(found.sum(-1), torch.ones(2).double())
    torch.testing.assert_close(probabilities(logits, 1.0, 0.51)[0, 1], torch.tensor(2 / 3).double())
    torch.testing.assert_close(probabilities(logits, 0.5, 1.0)[0], torch.tensor([4, 100, 9, 25]) / 138.0,
                               check_dtype=False)  # fmt: skip


def test_random_numbers_at_the_edges_never_draw_what_is_impossible():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]])
    least, most = 0.0, 1 - 2.0**-53
    sampler = Sampler(torch.tensor([[least], [most]], dtype=torch.float64), 1.0, 1.0)
    assert sampler(logits.expand(2, -1), [0, 1], 0).tolist() == [1, 3]


# ---- wrong calls ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"texts": "ten"}, r"the text 'ten' was given in place of a list of texts; give \[text\]"),
        ({"texts": ["ten", 3]}, r"texts\[1\] is a int; give strings, such as example.input"),
        ({"runs": 3}, "run 3 does not exist: this FixedPrompt has the runs 0 to 2 only"),
        ({"runs": -1}, "run -1 does not exist"),
        ({"runs": [0]}, "1 runs were given for 2 texts; give one for all, or one per text"),
        ({"runs": "0"}, "runs is '0'; give a row of the source"),
        ({"runs": 1.0}, "runs is 1.0; give a row of the source"),
        ({"source": None, "runs": 1}, "runs were given without a source"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; it must be at least 1, and a whole number"),
        ({"max_new_tokens": "2"}, "max_new_tokens is '2'; it must be at least 1, and a whole number"),
        ({"temperature": "1"}, "temperature is '1'; give a number"),
        ({"stop": None}, r"stop is \(None,\); give strings that are not empty, or \(\) for none"),
        ({"generator": 0, "do_sample": True}, "generator is 0; give a torch.Generator: torch"),
        ({"texts": None}, "a NoneType was given in place of a list of texts; give strings"),
        ({"texts": ["a \udcff b"]}, r"texts\[0\] has the character '\\udcff', half of a pair"),
        (
            {"max_new_tokens": 60},
            r"texts\[0\] \('ten'\): prompt \(3\) \+ text .* take 64 .*, llama has 63",
        ),
        ({"temperature": 0.5}, "temperature=0.5 and top_p=1.0 have no effect .* do_sample=True"),
        ({"top_p": 0.5}, "have no effect on the likeliest tokens"),
        ({"generator": seeded()}, "do_sample=False and generator=.*give both or neither"),
        ({"do_sample": True}, r"do_sample=True, generator=torch.Generator\(\).manual_seed\(0\)"),
        ({**DRAWN, "temperature": 0.0}, "temperature is 0.0 .* finite temperature > 0 and 0 < top_p <= 1"),
        ({**DRAWN, "temperature": float("nan")}, "finite temperature > 0"),
        ({**DRAWN, "top_p": 1.5}, "top_p 1.5; give"),
        ({**DRAWN, "top_p": 0.0}, "0 < top_p <= 1"),
        ({"stop": ["\n", ""]}, "stop is .* strings that are not empty"),
        ({"stop": [3]}, "stop is .* strings that are not empty"),
        ({"source": None, "texts": ["ten", ""]}, r"texts\[1\] \(''\) has no token, and there is no prompt"),
        ({"source": torch.zeros(1, 3, 32)}, r"a Tensor was given .* wrap it: methods.SoftPrompt\(tensor\)"),
        ({"source": Prompt(torch.zeros(1, 3, 32))}, "a Prompt was given .* give the source that made it"),
        (
            {"source": FixedPrompt(torch.full((2, 3, 32), torch.nan))},
            "prompt of run 0 has values that",
        ),
        ({"source": FixedPrompt(torch.zeros(1, 3, 16))}, "does not fit llama .width of its vectors 16"),
        (
            {"source": FixedPrompt(torch.zeros(1, 3, 32), about={"layout": LAYOUTS[1]})},
            "made for the layout 'prompt-text-answer', this engine has 'text-prompt-answer'",
        ),
    ],
)
def test_a_wrong_call_says_what_to_give(given, told):
    model = dataclasses.replace(made("llama"), max_positions=63)
    call = {"source": source_of(model), "texts": ["ten", "six"], "max_new_tokens": 4, **given}
    engine = Engine(model)
    engine._hidden = None  # nothing runs
    with pytest.raises(ValueError, match=told):
        engine.generate(call.pop("source"), call.pop("texts"), **call)


def test_a_text_that_just_fits():
    model = dataclasses.replace(made("gpt2"), max_positions=64)
    source = source_of(model)
    (found,) = Engine(model).generate(source, ["ten"], max_new_tokens=60)
    assert found == transformers_own(model, LAYOUTS[0], "ten", source.P[0], 60)


def test_dropout_is_off_and_the_source_stays_as_it_was():
    class Dropped(FixedPrompt):
        def forward(self, runs):
            return Prompt(torch.nn.functional.dropout(super().forward(runs).embeds, 0.5, self.training))

    model = made("llama")
    source, engine = source_of(model), Engine(model)
    dropped = Dropped(source.P).train()
    assert engine.generate(dropped, TEXTS, runs=RUNS) == engine.generate(source, TEXTS, runs=RUNS)
    assert dropped.training


def test_no_texts_give_no_continuations():
    engine = Engine(made("llama"))
    assert engine.generate(source_of(engine.backbone), []) == []
    assert engine.generate(None, [], do_sample=True, generator=seeded()) == []
    with pytest.raises(ValueError, match="max_new_tokens"):
        engine.generate(None, [], max_new_tokens=0)


def test_an_engine_of_classes_says_that_it_generates_no_text():
    with pytest.raises(ValueError, match="a HeadEngine chooses from classes .* an Engine with a causal"):
        HeadEngine(backbone("tiny-encoder", "float32")).generate(None, ["ten"])
