"""The engine: many rows (prompt, example) in one forward pass of a frozen model, each with its own prompt.

Where to read what:

    engine         `Engine`, which answers in words; its docstring says where a prompt enters the model
    head_engine    `HeadEngine`, which reads classes with a trained linear head
    mask_engine    `MaskEngine`, which reads classes from words at [MASK]
    interface      `PromptEngine`, what all three have in common
    prompt         `Prompt`, and `PromptSource`, the base class of all methods
    sites          the attentions of a model, where deep prompts enter
    rotary         keys of deep prompts, moved to other positions

    layouts        the order of prompt, text and words in a row
    word_rows, head_rows    examples as token ids
    rows, batches  many rows as one rectangle; rows cut into batches

    forward        one forward pass with keys and values to the left of the tokens
    left_memory, adapter_hooks    how such keys and values, and adapters, get into transformers' layers
    text_cache     keys and values of texts, computed once
    decoding, seq2seq    generated answers; encoder-decoder models
    fast           faster forward passes of Llama and BERT

    compatibility, limits    checks before training: does a prompt fit the engine, does a task?
    calls          sentences for wrong calls
    exact          comparisons with the model's own forward pass, in float32
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
