"""Options and arguments that several commands share, with the values that a shell completes."""

from __future__ import annotations

from typing import Annotated

import typer

MODELS = ("smollm2-135m", "minilm-l6", "tiny-causal", "tiny-encoder", "tiny-seq2seq")
DTYPES = ("auto", "float32", "float64", "bfloat16", "mixed")
DEVICES = ("auto", "cpu", "cuda")
SUITES = ("core36", "encoder9", "ipt120", "encoders", "crossfit", "tiny", "tiny3")

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=lambda: DEVICES)]
Dtype = Annotated[
    str, typer.Option(help="auto, float32, float64, bfloat16 or mixed.", autocompletion=lambda: DTYPES)
]
Suite = Annotated[
    str,
    typer.Option(
        help="core36, encoder9, ipt120, encoders, crossfit, tiny, tiny3, or a file or folder of your own.",
        autocompletion=lambda: SUITES,
    ),
]
Columns = Annotated[
    str,
    typer.Option(
        help="Which columns of your files hold what: input=sentence,target=label (also options=...; "
        "input=premise+hypothesis joins two)."
    ),
]
DropDuplicates = Annotated[
    bool | None,
    typer.Option(
        "--drop-duplicates", help="Leave out inputs that appear again, instead of refusing the task."
    ),
]
