import base64
import functools
import itertools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import families
import pytest
import torch
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from stock import backbone

from iptkit.course import diagrams, lessons
from iptkit.engine.sites import find_sites
from iptkit.methods.heads import WithHead
from iptkit.methods.p_tuning import EncodedPrompt
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt
from iptkit.methods.subspace import AutoEncoder, IntrinsicPrompt, SubspaceConfig
from iptkit.studies import scales
from iptkit.studies.study import Study
from iptkit.tasks import suites

METHODS = {
    "zero_shot",
    "prompt_tuning",
    "p_tuning",
    "p_tuning_v2",
    "msf",
    "ist",
    "deep_subspace",
    "fine_tuning",
    "adapters",
}
LARGE = {
    "trained": 6_738_415_616,
    "kept": 153_600,
    "tasks": 1000,
    "folds": 6,
    "here": "08",
    "dims": (1000, 1000, 1000),
}  # the widest texts
SMALLEST = 15  # units of the viewBox
SVG = "{http://www.w3.org/2000/svg}"
every_diagram = pytest.mark.parametrize("name", diagrams.names())


def numbers_of(name):
    """Every number that a diagram can show, each as wide as it may get."""
    of_course = {"course_map": ["here"], "cross_fitting": ["tasks", "folds"], "jobs": ["dims"]}
    shown = ({"zero_shot": []} | of_course).get(name, ["trained"])
    shown = shown + {"p_tuning": ["kept"], "msf": ["tasks"]}.get(name, [])
    return {key: LARGE[key] for key in shown}


def root_of(name, **numbers):
    return ElementTree.fromstring(diagrams.svg(name, **numbers))


def words_of(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def parts_of(name):
    """The statuses of a picture's parts by name."""
    titles = [group.findtext(f"{SVG}title") for group in root_of(name).iter(f"{SVG}g")]
    return dict(title.split(": ") for title in titles if ": " in title)


def box_of(element):
    """Left, upper, right and lower edge of a line of words, measured in a wide font."""
    size, is_bold = float(element.get("font-size")), element.get("font-weight") == "bold"
    font = FontProperties(family="DejaVu Sans", weight="bold" if is_bold else "normal", size=size)
    width, height, descent = text_to_path.get_text_width_height_descent(element.text, font, ismath=False)
    x, y = float(element.get("x")), float(element.get("y"))
    left = x - width * {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor")]
    return left, y - height + descent, left + width, y + descent


def contrast(one, other):
    """Contrast ratio of two colours, as in WCAG 2.2."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# ---- every picture ---------------------------------------------------------------------------------
def test_there_is_one_for_every_method():
    assert set(diagrams.names()) == METHODS | {"course_map", "cross_fitting", "jobs"}


@every_diagram
def test_files_are_the_same_each_time(name):
    assert diagrams.svg(name, **numbers_of(name)) == diagrams.svg(name, **numbers_of(name))


@every_diagram
def test_files_have_a_white_background_and_a_description(name):
    root = root_of(name)
    _, _, width, height = root.get("viewBox").split()
    back = root.find(f"{SVG}rect")
    assert (back.get("width"), back.get("height"), back.get("fill")) == (width, height, "#ffffff")
    labels = root.get("aria-labelledby").split()
    said = {element.get("id"): element.text for element in root}
    assert said[labels[0]] and said[labels[1]] == diagrams.alt(name)


@every_diagram
def test_descriptions_are_two_sentences(name):
    assert re.fullmatch(r"[A-Z][^.]+\. [A-Z][^.]+\.", diagrams.alt(name))


@every_diagram
@pytest.mark.parametrize("is_large", [False, True])
def test_words_are_inside_the_picture_and_apart(name, is_large):
    root = root_of(name, **(numbers_of(name) if is_large else {}))
    _, _, width, height = map(float, root.get("viewBox").split())
    texts = list(root.iter(f"{SVG}text"))
    assert min(float(text.get("font-size")) for text in texts) >= SMALLEST
    boxes = [(text.text, box_of(text)) for text in texts if text.text]
    for words, (left, upper, right, lower) in boxes:
        assert left >= 0 and upper >= 0 and right <= width and lower <= height, words
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (one, other)


@every_diagram
def test_words_are_inside_their_part(name):
    for group in root_of(name, **numbers_of(name)).iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        x, y, w, h = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        for text in group.iter(f"{SVG}text"):
            left, upper, right, lower = box_of(text)
            assert x <= left and right <= x + w and y <= upper and lower <= y + h, text.text


@every_diagram
def test_words_and_shapes_stand_out(name):
    root = root_of(name, **numbers_of(name))
    for group in [root, *root.iter(f"{SVG}g")]:
        solid = [rect.get("fill") for rect in group.findall(f"{SVG}rect") if rect.get("fill")[0] == "#"]
        below = solid[0] if group is root else ""
        for element in group:  # what is drawn later lies above
            if element.tag == f"{SVG}rect" and element.get("fill").startswith("#") and group is not root:
                is_bar = float(element.get("height")) == 16 or element.get("rx") == "1"
                below = below if is_bar else element.get("fill")
            if element.tag == f"{SVG}text":
                assert contrast(element.get("fill"), below) >= 4.5, element.text
    lines = {element.get("stroke") for element in root.iter() if element.get("stroke")} - {
        diagrams.HATCH,
        "#ffffff",
    }
    assert lines and all(contrast(line, diagrams.WHITE) >= 3 for line in lines)
    assert contrast(diagrams.TRAINED, diagrams.HATCHED) >= 3  # a gradient arrow on a frozen part


# ---- what is trained -------------------------------------------------------------------------------
def generator():
    return torch.Generator().manual_seed(0)


def subspace(bank):
    return AutoEncoder(bank, SubspaceConfig(2, 4), generator())


def is_trained(source, start):
    """Whether the parameters of a source whose name begins with `start` are trained: all, or none of them."""
    (found,) = {p.requires_grad for name, p in source.named_parameters() if name.startswith(start)}
    return found


@functools.cache
def sources():
    """Pictures, with their method's prompt source and the names of its parameters for each part."""
    bank = torch.randn(3, 2, 8, generator=generator())
    sites = find_sites(families.model("bert"))
    deep = DeepPrompt(2, sites, 3, generator())
    shape = (3, len(sites), 2, sites[0].num_kv_heads, 3, sites[0].head_width)
    deep_bank = torch.randn(shape, generator=generator())
    found = AutoEncoder(deep_bank, SubspaceConfig(2, 4), generator(), "keys_values")
    layers = {f"prompt, {name}": "prompt.P" for name in ("layer L", "layers between", "layer 1")}
    adapters = SoftPrompt(torch.zeros(1, 4, 2, 8, 3), "adapters")
    behind = {f"adapter behind {block}": "P" for block in ("attention", "feed-forward")}
    codes = {"code z": "u", "decoder": "decoder.decoder."}
    return {
        "prompt_tuning": (SoftPrompt(bank), {"prompt P": "P"}),
        "p_tuning": (
            EncodedPrompt(bank, "lstm", generator()),
            {"vectors X": "input", "encoder": ("lstm.", "inner.", "outer.")},
        ),
        "p_tuning_v2": (WithHead(2, 8, 3, generator(), deep), {"head": "head", **layers}),
        "msf": (subspace(bank), {"encoder": "encoder.", "decoder": "decoder."}),
        "ist": (IntrinsicPrompt(subspace(bank), 2), codes),
        "deep_subspace": (IntrinsicPrompt(found, 2), codes),
        "adapters": (adapters, behind),
    }


@pytest.mark.parametrize("name", sorted(METHODS - {"zero_shot", "fine_tuning"}))
def test_pictures_train_what_the_methods_train(name):
    source, names = sources()[name]
    shown = parts_of(name)
    for part, start in names.items():
        assert shown[part] == ("trained" if is_trained(source, start) else "frozen"), part
    assert {part for part, status in shown.items() if status == "trained"} == {
        part for part, start in names.items() if is_trained(source, start)
    }
    starts = tuple(itertools.chain(*([s] if isinstance(s, str) else s for s in names.values())))
    rest = [one for one, p in source.named_parameters() if p.requires_grad and not one.startswith(starts)]
    assert not rest, "the picture leaves out something that is trained"


@pytest.mark.parametrize("name", sorted(METHODS - {"fine_tuning"}))
def test_the_model_is_frozen(name):
    model = backbone("tiny-causal", "float32").model
    assert not any(p.requires_grad for p in model.parameters())
    frozen = [part for part, status in parts_of(name).items() if status == "frozen"]
    assert [part for part in frozen if "model" in part or part in ("attention", "feed-forward")]


def test_fine_tuning_freezes_nothing_and_words_train_nothing():
    assert parts_of("fine_tuning") == {"language model": "trained"}
    assert "trained" not in parts_of("zero_shot").values()
    assert not list(FixedPrompt(torch.zeros(1, 2, 8)).parameters())


@pytest.mark.parametrize("name", ["ist", "deep_subspace"])
def test_the_encoder_of_msf_is_thrown_away(name):
    assert parts_of(name)["encoder"] == "thrown away"
    source = IntrinsicPrompt(subspace(torch.randn(3, 2, 8, generator=generator())), 2)
    source.decoder.encoder = None  # the code is decoded without it
    assert source(torch.tensor([0])).embeds.isfinite().all()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_signs_have_words_and_a_legend(name):
    words = words_of(root_of(name))
    for status in set(parts_of(name).values()):
        assert words.count(status) >= 2, status  # in the part, and in the legend
    assert ("gradient" in words) == (name != "zero_shot")


@pytest.mark.parametrize("name", sorted(METHODS - {"p_tuning_v2", "adapters", "deep_subspace"}))
def test_rows_are_read_in_the_default_order(name):
    words = words_of(root_of(name))
    prompt = {"prompt_tuning": "prompt P", "p_tuning": "P", "msf": "prompt p*", "ist": "prompt p*"}
    last = len(words) - 1 - words[::-1].index(prompt.get(name, "words"))
    assert words.index("text") < last < words.index("answer")


# ---- numbers ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(METHODS - {"zero_shot"}))
def test_numbers_come_from_arguments(name):
    assert not [word for word in words_of(root_of(name)) if re.search(r"\d{2}|[3-9]", word)]
    assert any("31,415 parameters" in word for word in words_of(root_of(name, trained=31415)))


def test_other_numbers():
    assert "Trained per task: 0 parameters" in words_of(root_of("zero_shot"))
    assert "of 100 seen tasks" in words_of(root_of("msf", tasks=100))
    assert "= 2,304" in words_of(root_of("p_tuning", kept=2304))
    assert "60 tasks in 4 parts of 15" in words_of(root_of("cross_fitting", tasks=60, folds=4))
    assert words_of(root_of("course_map")).count("you are here") == 0
    assert words_of(root_of("course_map", here="90")).count("you are here") == 1


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="diagram 'lora' is unknown; choose one of zero_shot, prompt_tuning"):
        diagrams.svg("lora")
    with pytest.raises(ValueError, match="'p_tuning' does not show folds; it shows trained, kept"):
        diagrams.svg("p_tuning", folds=3)
    with pytest.raises(ValueError, match="'zero_shot' does not show trained; it shows no other numbers"):
        diagrams.svg("zero_shot", trained=5)
    with pytest.raises(ValueError, match="here='10' is no lesson"):
        diagrams.svg("course_map", here="10")
    with pytest.raises(ValueError, match="tasks=120, folds=7"):
        diagrams.svg("cross_fitting", folds=7)
    with pytest.raises(ValueError, match=r"dims=\(2, 5\): the picture shows three"):
        diagrams.svg("jobs", dims=(2, 5))


# ---- the course ------------------------------------------------------------------------------------
def test_the_map_has_every_lesson_and_what_it_needs():
    course = lessons.find()
    assert [one.number for one in course] == [*diagrams.STOPS, "90"]
    for one in course[:-1]:
        stop = diagrams.STOPS[one.number]
        assert len(stop.question.split()) == 3
        (line,) = re.findall(r"\| needs \|([^|]*)\|", one.path.read_text(encoding="utf-8")) or [None]
        if line is not None:
            assert set(re.findall(r"\b0\d\b", line)) == set(stop.needs), one.number


def test_every_fold_leaves_out_what_the_last_one_scored():
    words = words_of(root_of("cross_fitting"))
    for fold in range(6):
        row = words[words.index(f"fold {fold + 1}") + 1 :]
        cells = " ".join(row[:7]).replace("seen, scored", "scored").split()
        next_fold = (fold + 1) % 6
        assert cells == [{fold: "unseen", next_fold: "scored"}.get(group, "seen") for group in range(6)]
        splits = [suites.split(f"fold{one + 1}", "ipt120") for one in (fold, next_fold)]
        assert set(splits[0].scored) == set(splits[1].unseen) and len(splits[0].unseen) == 20


def test_jobs_that_need_another_one_stand_below_it():
    study = Study(replace(scales.load("smoke"), dims=(1, 2, 5)))
    height = {}
    for group in root_of("jobs", dims=(1, 2, 5)).iter(f"{SVG}g"):
        height[group.findtext(f"{SVG}title")] = float(group.find(f"{SVG}rect").get("y"))
    names = {"prompts": "prompts of all tasks", "codes-random-5": "codes random decoder"}
    for job in study.jobs():
        title = names.get(job.name) or re.sub(r"(-learned)?-(\d+)$", r" d_I = \2", job.name)
        title = title if title in height else title.replace("-", " ")
        for need in job.needs if title in height else ():
            other = names.get(need) or re.sub(r"-(\d+)$", r" d_I = \1", need)
            assert height.get(other, height[names["prompts"]]) < height[title], (title, other)
        assert title in height or job.name in ("zero-shot", *(f"msf-{dim}" for dim in study.scale.dims))


def test_show_displays_a_picture_with_its_words(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append((data, options)))
    diagrams.show("ist", trained=5)
    ((data, options),) = shown
    assert options == {"raw": True} and data["text/plain"] == diagrams.alt("ist")
    picture = ElementTree.fromstring(data["text/html"])
    assert picture.tag == "img" and picture.get("alt") == diagrams.alt("ist")
    start, encoded = picture.get("src").split(",")
    assert start == "data:image/svg+xml;base64"
    assert base64.b64decode(encoded).decode() == diagrams.svg("ist", trained=5)
