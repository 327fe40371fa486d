"""Prompts from files: `load_prompt` for an engine that you have, `open_prompt` for the one that a file names.

    source.save(FILE, scores)            every prompt source has this method
    source = load_prompt(FILE, engine)   refused if it does not fit the engine
    engine, source = open_prompt(FILE)   with the model, layout and attentions that the file names

A file holds finished prompts, so `SavedPrompt` is what comes back, whatever method made them (`source.method`
names it). Its prompts and heads are parameters: they can be used as they are, or trained on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from iptkit.engine import prompt_files
from iptkit.engine.calls import check_engine
from iptkit.engine.compatibility import check_about, check_prompt, check_source
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import Kind, Prompt, PromptSource, Site, check_numbers
from iptkit.engine.sites import find_sites
from iptkit.models import backbone as backbones
from iptkit.models.backbone import Backbone
from iptkit.storage import tensor_files

KINDS: tuple[Kind, ...] = ("embeds", "keys_values", "adapters")


class SavedPrompt(PromptSource):
    """Prompts of R runs, with heads if they have some, as trainable parameters.

    Args:
      prompt: of R rows.
      about: what they were made for; see `PromptSource`.
      sites: the attentions of a deep prompt.
    """

    lengths: Tensor | None

    def __init__(self, prompt: Prompt, about: Mapping[str, Any], sites: tuple[Site, ...] = ()):
        super().__init__()
        self.about, self.sites = about, sites
        self.parts = [name for name in prompt.tensors() if name != "lengths"]
        for name in self.parts:
            part = getattr(prompt, name).detach().clone()
            self.register_parameter(name, nn.Parameter(part))
        self.register_buffer("lengths", prompt.lengths)

    @property
    def method(self) -> str:
        """The name of the method that made the prompts."""
        return str(self.about.get("method", type(self).__name__))

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] the run of each row -> one prompt per row."""
        made = {name: getattr(self, name).index_select(0, runs) for name in self.parts}
        lengths = None if self.lengths is None else self.lengths.index_select(0, runs)
        return Prompt(**made, lengths=lengths)


def read_about(path: str | Path) -> dict[str, Any]:
    """What the header of a prompt file says: "method", "backbone", "layout", "tasks", "scores" and more.

    Args:
      path: the file, or its folder.
    Raises: see `load_prompt`.
    """
    return prompt_files.read(path)[1]


def load_prompt(path: str | Path, engine: PromptEngine | Backbone) -> SavedPrompt:
    """The prompts in a file that `PromptSource.save` wrote, on the engine's device.

    Args:
      path: the file, or its folder.
      engine: one that the prompts must fit. With a model (`models.load`) in its place, the layout is checked
        later, by `fit` and `evaluate`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged or no prompt file, or its prompts do not fit: another model, width,
        layout, length or attentions. The message names what differs.

    Example:
      >>> import tempfile, torch
      >>> from iptkit import models
      >>> from iptkit.methods.prompt_tuning import SoftPrompt
      >>> from iptkit.engine.compatibility import made_for
      >>> engine = Engine(models.load("tiny-causal"))
      >>> source = SoftPrompt(torch.zeros(1, 4, engine.backbone.width), about=made_for(engine, 4))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = source.save(f"{folder}/mine.prompt.safetensors")
      ...     load_prompt(file, engine).method
      'SoftPrompt'
    """
    check_engine(engine, or_model=True)
    tensors, about = prompt_files.read(path)
    return _fitting(path, tensors, about, engine)


def open_prompt(
    path: str | Path, device: str = "cpu", dtype: str = "auto", model: str | Path | Backbone | None = None
) -> tuple[Engine | HeadEngine, SavedPrompt]:
    """An engine as the prompts in a file need it, and the prompts.

    Args:
      path: the file, or its folder.
      device: of the model, see `models.load`.
      dtype: of the model, see `models.load`.
      model: the model, or its name or folder; None for the name in the file.

    Raises: ValueError and FileNotFoundError, see `load_prompt`; also if the model cannot be loaded, or if the
      prompts were made with an engine that a file cannot describe (`MaskEngine`, or one of your own).
    """
    tensors, about = prompt_files.read(path)
    kind = about.get("engine")
    if kind not in ("Engine", "HeadEngine"):
        raise ValueError(
            f"the prompts of {path} were made with a {kind}, which their file does not describe in full; "
            "make that engine, then call load_prompt(path, engine)"
        )
    if not isinstance(model, Backbone):
        model = backbones.load(model or about["backbone"], device, dtype)
    check_about(model, None, about, f"the prompt of {path}")
    sites, layout = _sites(path, about, model), about.get("layout")
    engine: Engine | HeadEngine
    try:
        if kind == "HeadEngine":
            engine = HeadEngine(model, sites)
        else:
            engine = Engine(model, layout if isinstance(layout, str) else tuple(layout or ()), sites=sites)
    except ValueError as error:
        raise ValueError(f"the prompt of {path}: {error}") from error
    return engine, _fitting(path, tensors, about, engine)


def push_to_hub(path: str | Path, repo_id: str, private: bool = False, token: str | None = None) -> str:
    """Upload a prompt with its card to a model hub, and return the address of the commit.

    The uploaded header names files and model folders of this machine without their path.

    Args:
      path: a prompt file, or a folder that `PromptSource.save` wrote; a card that you have edited is kept.
      repo_id: "OWNER/NAME"; the repository is made if it is not there.
      private: whether a new repository is private.
      token: of the hub; None for the one of `hf auth login`.
    """
    from huggingface_hub import HfApi

    file = prompt_files.file_of(path)
    tensors, about = prompt_files.read(file)
    own = file.parent / prompt_files.CARD
    is_folder = file.name == prompt_files.IN_FOLDER and own.is_file()
    text = own.read_text(encoding="utf-8") if is_folder else prompt_files.card(about)
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, prompt_files.CARD).write_text(text, encoding="utf-8")
        tensor_files.write(Path(folder, prompt_files.IN_FOLDER), tensors, prompt_files.public(about))
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a prompt"))


def from_hub(
    repo_id: str,
    engine: PromptEngine | Backbone,
    revision: str | None = None,
    token: str | None = None,
) -> SavedPrompt:
    """The prompts that `push_to_hub` uploaded; see `load_prompt`.

    Args:
      repo_id: "OWNER/NAME".
      engine: one that the prompts must fit.
      revision: a commit, branch or tag; a full commit hash pins what is loaded.
      token: of the hub; None for the one of `hf auth login`.
    """
    from huggingface_hub import hf_hub_download

    name = prompt_files.IN_FOLDER
    return load_prompt(hf_hub_download(repo_id, name, revision=revision, token=token), engine)


def _fitting(
    path: str | Path, tensors: dict[str, Tensor], about: dict[str, Any], engine: PromptEngine | Backbone
) -> SavedPrompt:
    """The prompts, after a check that they fit."""
    backbone = engine if isinstance(engine, Backbone) else engine.backbone
    layout = None if isinstance(engine, Backbone) else engine.layout
    check_about(backbone, layout, about, f"the prompt of {path}")
    for name in KINDS:
        if name in tensors:
            check_numbers(tensors[name], name, name)
    prompt = Prompt(**{name: part.to(backbone.device) for name, part in tensors.items()})
    if prompt.embeds is not None and about.get("prompt_length") not in (None, prompt.length):
        raise ValueError(
            f"{path} says that its prompts have the length {about['prompt_length']}, but they have "
            f"{prompt.length} vectors; save the prompt again"
        )
    sites = _sites(path, about, backbone)
    count = 0 if prompt.keys_values is None else prompt.keys_values.shape[1]
    if count != len(sites):
        raise ValueError(
            f"{path} has keys and values for {count} attentions, but its header names {len(sites)}; save the "
            "prompt again"
        )
    check_prompt(prompt, backbone, sites)
    source = SavedPrompt(prompt, about, sites)
    if not isinstance(engine, Backbone):
        check_source(engine, source)
    return source


def _sites(path: str | Path, about: dict[str, Any], backbone: Backbone) -> tuple[Site, ...]:
    """The attentions of a model that a file's header names.

    Raises: ValueError if the model lacks one of them.
    """
    wanted = about.get("sites") or []
    there = find_sites(backbone.model) if wanted else []
    by_name = {(site.part, site.layer): site for site in there}
    found = tuple(by_name[name] for name in map(tuple, wanted) if name in by_name)
    if len(found) != len(wanted):
        raise ValueError(
            f"the prompt of {path} enters the attentions {wanted[0]} to {wanted[-1]}, but {backbone.name} "
            f"has {len(there)} others; load the model that the prompt was made for"
        )
    return found
