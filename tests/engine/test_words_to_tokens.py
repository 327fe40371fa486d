"""Words to tag, answers and words at [MASK] in tokenizers of many kinds: the tokens are those of texts."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from stock import backbone
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from iptkit.engine import mask_engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.head_rows import best_span
from iptkit.engine.layouts import LAYOUTS, Layout
from iptkit.engine.sites import find_sites
from iptkit.engine.word_rows import WordRows
from iptkit.methods import p_tuning_v2
from iptkit.methods.heads import WithHead
from iptkit.models import tiny
from iptkit.scores import evaluation
from iptkit.tasks import suites
from iptkit.tasks.examples import Example, SpanExample, TaggedExample
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run

TEXTS = ["Anna runs in New York .", "Ben sees New York , and Anna swims in the sea ."] * 4
TEXTS += ["It was great .", "great (great)"] * 4
WORDS = ("Anna", "runs", "in", "New", "York", ".")
RUNNING = ["Anna", "Ġruns", "Ġin", "ĠNew", "ĠYork", "Ġ."]
LLAMA_3 = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPECIAL = {
    "roberta": ("<s>", "</s>", "<mask>"),
    "gpt2": (),
    "modernbert": ("[CLS]", "[SEP]", "[MASK]"),
    "llama3": ("<s>",),
    "llama2": ("<s>", "</s>", "<unk>"),
    "t5": ("<pad>", "</s>", "<unk>"),
    "xlm-roberta": ("<s>", "</s>", "<unk>"),
}
BYTE_LEVEL, SENTENCEPIECE = ("roberta", "gpt2", "modernbert", "llama3"), ("llama2", "t5", "xlm-roberta")


def around(single, pair, ids):
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(ids.items()))


def tokenizer(kind):
    """A tiny tokenizer of a model's kind, trained here."""
    special = list(SPECIAL[kind])
    options = {"special_tokens": special, "show_progress": False}
    metaspace = pre_tokenizers.Metaspace()
    if kind in BYTE_LEVEL:
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if kind == "llama3":
            whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(LLAMA_3, "isolated"), whole])
        trainer = trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options
        )
    elif kind == "llama2":
        core = Tokenizer(models.BPE(unk_token="<unk>"))
        core.pre_tokenizer, trainer = metaspace, trainers.BpeTrainer(vocab_size=200, **options)
    else:
        core = Tokenizer(models.Unigram())
        blanks = normalizers.Replace(Regex(" {2,}"), " ")
        core.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), blanks])
        core.pre_tokenizer = metaspace
        trainer = trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", **options)
    core.train_from_iterator(TEXTS, trainer)
    if kind == "llama2":  # which has no words before its tokens
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        core.pre_tokenizer = pre_tokenizers.Sequence([])
    ids = {token: core.token_to_id(token) for token in special}
    if kind == "roberta":
        ends = (("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
        core.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    elif kind == "modernbert":
        core.post_processor = around("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ids)
    elif kind in ("gpt2", "llama3"):
        core.post_processor = processors.ByteLevel(trim_offsets=False)
    elif kind == "t5":
        core.post_processor = around("$A </s>", "$A </s> $B </s>", ids)
    else:
        core.post_processor = around("<s> $A </s>", "<s> $A </s> </s> $B </s>", ids)
    named = {"mask_token": special[2]} if kind in ("roberta", "modernbert") else {}
    return PreTrainedTokenizerFast(tokenizer_object=core, **named)


def sentence(*words, tags=(), labels=("B-x", "O")):
    tags = tags or ("O",) * len(words)
    return TaggedExample(" ".join(words), (" ".join(tags),), (), labels)


def row_of(a_tokenizer, example, kind="encoder"):
    model = backbone("tiny-encoder" if kind == "encoder" else "tiny-causal", "float64")
    engine = HeadEngine(model)
    engine.backbone = replace(model, tokenizer=a_tokenizer)
    row = engine.target_row(example)
    return row, a_tokenizer.convert_ids_to_tokens(list(row.text))


@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_byte_level_words_keep_their_blanks(kind):
    made = tokenizer(kind)
    row, tokens = row_of(made, sentence(*WORDS))
    assert [token for token in tokens if token not in SPECIAL[kind]] == RUNNING
    assert list(row.text) == made(" ".join(WORDS)).input_ids
    assert [tokens[place] for place in row.positions] == RUNNING
    one_by_one = made(list(WORDS), is_split_into_words=True).tokens()
    assert "runs" in one_by_one or "Ġruns" not in one_by_one, "what this test is here to see"


@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *SENTENCEPIECE])
@pytest.mark.parametrize("of", ["encoder", "causal"])
def test_the_head_looks_at_the_first_or_the_last_token_of_each_word(kind, of):
    made, words = tokenizer(kind), ("Banana", "runs", "swimming", "in", "New", "Yorkshire", "(", "Annas", ".")
    row, tokens = row_of(made, sentence(*words), of)
    assert list(row.text) == made(" ".join(words)).input_ids and len(row.positions) == len(words)
    assert sorted({*row.positions}) == list(row.positions)
    for word, place in zip(words, row.positions, strict=True):
        piece = tokens[place].strip("▁Ġ")
        if piece != "<unk>":
            assert piece and (word.startswith(piece) if of == "encoder" else word.endswith(piece))


def test_the_default_model_and_the_bundled_encoder():
    row, tokens = row_of(backbone("smollm2-135m", "float32").tokenizer, sentence(*WORDS), "causal")
    assert tokens == RUNNING and row.positions == tuple(range(6))
    made = backbone("minilm-l6", "float32").tokenizer
    row, tokens = row_of(made, sentence(*WORDS))
    assert tokens == ["[CLS]", "anna", "runs", "in", "new", "york", ".", "[SEP]"]
    assert row.positions == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize("task", ["address-tags", "person-tags", "company-tags", "pos-tags"])
def test_word_pieces_are_those_of_words_one_by_one(task):
    """So that stored results of encoder9 and of lesson 04 stay what they are."""
    engine = HeadEngine(backbone("minilm-l6", "float32"))
    made = engine.backbone.tokenizer
    (read,) = suites.load_suite("encoder9", only=[task])
    for example in (*read.train, *read.dev, *read.test):
        row, coded = engine.target_row(example), made(list(example.words), is_split_into_words=True)
        owners = coded.word_ids()
        assert list(row.text) == coded.input_ids
        assert row.positions == tuple(map(owners.index, range(len(example.words))))


def test_invisible_marks_take_no_token_from_their_neighbours():
    words = ("Anna", "\u200b", "runs", "\ufeff", "New\u00a0York", ".")
    for kind in ("t5", "xlm-roberta"):
        with pytest.warns(UserWarning, match="has no token for the word '\\\\u200b'"):
            row, tokens = row_of(tokenizer(kind), sentence(*words))
        assert row.unread == (1, 3) and len(row.positions) == 4, kind
        assert [tokens[p].strip("▁")[:1] for p in row.positions] == ["A", "r", "N", "."]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row, _ = row_of(tokenizer("gpt2"), sentence(*words))
    assert row.unread == () and len(row.positions) == 6, "bytes are tokens"


# ---- words without a token -----------------------------------------------------------------------
def deaf_encoder():
    """The tiny encoder, whose tokenizer drops zero-width spaces and begins every text with [BOS]."""
    model = backbone("tiny-encoder", "float32")
    core = copy.deepcopy(tiny.word_tokenizer()._tokenizer)
    core.normalizer = normalizers.Replace("\u200b", "")
    begin = {"[BOS]": core.token_to_id("[BOS]")}
    core.post_processor = around("[BOS] $A", "[BOS] $A $B", begin)
    return replace(model, tokenizer=PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]"))


def test_words_without_a_token_get_o_and_a_note_and_training_goes_on():
    model, labels = deaf_encoder(), ("B-name", "I-name", "O")
    examples = (
        sentence("Ben", "\u200b", "has", "a", "drill", tags=("B-name", "O", "O", "O", "O"), labels=labels),
        sentence("\u200b", "\u200b\u200b", tags=("O", "B-name"), labels=labels),
        sentence("Cara", "Ben", "sees", "\u200b", tags=("B-name", "I-name", "O", "O"), labels=labels),
    )
    task = suites.load_task("tiny-mood", suite="tiny")
    sets = {name: examples for name in ("train", "train_new", "dev", "test")}
    task = replace(task, **sets, category="tag", metric="tag_accuracy", labels=labels)
    sites = find_sites(model.model)
    start = torch.Generator().manual_seed(0)
    source = WithHead(1, 32, 3, start, p_tuning_v2.DeepPrompt(1, sites, 2, start, std=0.5))
    engine = HeadEngine(model, sites)
    config = FitConfig(steps=60, rows_per_run=1, lr=0.05, evaluations=2, dev_examples=3)
    with pytest.warns(UserWarning, match="tiny-encoder has no token for the word .* get the tag O") as told:
        fitted = trainer.fit(engine, source, [Run(task)], config)
    assert len(told) == 1, "one note for all of them"
    assert torch.isfinite(torch.as_tensor(fitted.losses)).all()
    (answers,) = evaluation.predict(engine, source, [task])
    assert answers == ["B-name O O O O", "O O", "B-name I-name O O"]
    assert evaluation.evaluate(engine, source, [task]) == [10 / 11]
    rows = [engine.target_row(example) for example in examples]
    scores, count = engine.log_likelihoods(source(torch.tensor([0, 0, 0])), rows)
    assert count[:, 0].tolist() == [4, 1, 3] and scores[1, 0].item() == 0.0


def test_a_text_without_any_token_is_named():
    model = deaf_encoder()
    model.tokenizer._tokenizer.post_processor = around("$A", "$A $B", {})
    with pytest.raises(ValueError, match="has no token; leave it out"):
        HeadEngine(model).target_row(sentence("\u200b"))


def test_a_tokenizer_that_knows_no_places_is_named():
    model = backbone("tiny-encoder", "float64")

    class Slow:
        is_fast = False

    engine = HeadEngine(model)
    engine.backbone = replace(model, tokenizer=Slow())
    with pytest.raises(ValueError, match="the tokenizer of tiny-encoder .Slow. does not say where"):
        engine.target_row(sentence("Anna"))


# ---- spans and words at [MASK] -------------------------------------------------------------------
@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *SENTENCEPIECE])
def test_an_answer_has_no_blank_at_its_ends(kind):
    passage = "Ben sees New York , and Anna swims in the sea ."
    example = SpanExample("", ("New York",), (), "It was great .", passage, passage.index("New"))
    model = backbone("tiny-encoder", "float64")
    engine = HeadEngine(model)
    engine.backbone = replace(model, tokenizer=tokenizer(kind))
    row = engine.target_row(example)
    logits = torch.zeros(len(row.positions), 2)
    start, end = row.answers[0]
    logits[start, 0] = logits[end, 1] = 5.0
    assert best_span(row.passage, row.offsets, logits) == "New York"


@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
@pytest.mark.parametrize(
    ("template", "expected"),
    [("{text} It was {mask} .", "Ġgreat"), ("{text} ({mask})", "great"), ("{mask} : {text}", "great")],
)
def test_a_word_at_the_mask_has_its_blank_where_one_is_before_it(kind, template, expected):
    class Stub:
        backbone = replace(backbone("tiny-encoder", "float64"), tokenizer=tokenizer(kind))

    Stub.template = template
    made = mask_engine.MaskEngine._word(Stub(), "great")
    assert Stub.backbone.tokenizer.convert_ids_to_tokens(made) == expected


@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *SENTENCEPIECE])
def test_an_answer_has_one_blank_before_it(kind):
    """As in running text, also where the tokenizer puts a blank before every text of its own."""
    made = tokenizer(kind)
    words = WordRows(replace(backbone("tiny-causal", "float64"), tokenizer=made), Layout.of(LAYOUTS[0]))
    row = words.option_row(Example("Anna", ("great",), ("great", "New York")))
    for answer, option in zip(row.answers, ("great", "New York"), strict=True):
        assert [*row.text, *answer] == made(f"Anna {option}", add_special_tokens=False).input_ids
