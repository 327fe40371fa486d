import json
from dataclasses import replace

import pytest

from iptkit.scores import claims
from iptkit.storage import paths


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path))
    return tmp_path


def test_every_claim_has_a_source_and_a_lesson():
    names = [f"A{i}" for i in range(1, 15)] + [f"B{i}" for i in range(1, 11)]
    assert list(claims.known()) == names
    lessons = {path.name[:2] for path in (paths.data_dir().parent / "notebooks").glob("*.ipynb")}
    for claim in claims.known().values():
        assert claim.claim and claim.source and claim.paper
        assert claim.lesson in lessons


@pytest.mark.parametrize(
    ("difference", "margin", "verdict"),
    [
        ((0.1, 0.01, 0.2), 0.0, "holds"),
        ((-0.01, -0.02, 0.0), 0.03, "holds"),
        ((-0.1, -0.2, -0.01), 0.0, "does not hold here"),
        ((-0.1, -0.2, -0.01), 0.03, "not testable at this scale"),
        ((0.1, -0.01, 0.2), 0.0, "not testable at this scale"),
    ],
)
def test_the_interval_decides(difference, margin, verdict):
    assert claims.of_difference(difference, margin) == verdict


TEST = claims.Criterion("a − b", "score", "more", 0.0, 0.02)


@pytest.mark.parametrize(
    ("asks", "value", "effect", "p", "verdict"),
    [
        ("more", 0.0, (0.1, 0.01, 0.2), 0.01, "holds"),
        ("more", 0.0, (0.1, 0.01, 0.2), 0.06, "not testable at this scale"),
        ("more", 0.0, (0.0, -0.019, 0.019), 0.9, "does not hold here"),
        ("more", 0.0, (0.01, 0.001, 0.019), 0.01, "holds in part"),
        ("more", 0.0, (-0.1, -0.2, -0.01), 0.01, "does not hold here"),
        ("more", 0.0, (0.0, -0.03, 0.01), 0.5, "not testable at this scale"),
        ("less", 0.5, (0.2, 0.1, 0.3), 0.01, "holds"),
        ("less", 0.5, (0.8, 0.7, 0.9), 0.01, "does not hold here"),
        ("less", 0.5, (0.5, 0.3, 0.7), 0.9, "not testable at this scale"),
        ("about", 0.65, (0.66, 0.64, 0.7), 0.5, "holds"),
        ("about", 0.65, (0.6, 0.5, 0.7), 0.5, "not testable at this scale"),
        ("about", 0.65, (0.61, 0.6301, 0.64), 0.5, "holds"),
        ("about", 0.65, (0.5, 0.4, 0.62), 0.01, "does not hold here"),
    ],
)
def test_an_effect_is_judged_by_its_margin(asks, value, effect, p, verdict):
    assert claims.of_effect(effect, p, replace(TEST, asks=asks, value=value)) == verdict


def test_claims_say_beforehand_what_decides_them():
    known = claims.known()
    subspace = ("A1", "A3", "A4", "A7", "A8", "A9", "A10", "A12", "A13", "A14")
    for name in (*subspace, *(f"B{i}" for i in range(3, 11))):
        assert known[name].criteria, name
    with pytest.raises(ValueError, match="measure 'points', asks 'more'"):
        replace(TEST, measure="points")


def test_a_row_is_found_again_and_replaced(results):
    claims.record("B4", "lesson", "first", "holds", 5, 3)
    row = claims.record("B4", "lesson", "second", "holds in part", 5, 3)
    claims.record("B10", "smoke", "else", "holds", 1, 1)
    claims.record("B2", "lesson", "earlier claim", "holds", 2, 3)
    assert [r["claim"] for r in claims.found(results, "lesson")] == ["B2", "B4"]
    assert claims.found(results, "lesson")[1] == json.loads(json.dumps(row))
    assert "SECOND" not in claims.as_text([row]) and "HOLDS IN PART" in claims.as_text([row])
    assert "here: second (5 tasks, 3 seeds)" in claims.as_text([row])


def test_kept_rows_replace_those_of_their_claim_and_scale(results, tmp_path, monkeypatch):
    data = tmp_path / "data"
    (data / "results").mkdir(parents=True)
    (data / "claims.json").write_text((paths.data_dir() / "claims.json").read_text("utf-8"), "utf-8")
    monkeypatch.setattr(paths, "data_dir", lambda: data)
    assert claims.add_to_stored(results, "lesson") == 0 and not (data / "results" / claims.STORED).exists()
    for name in ("B10", "B2"):
        claims.record(name, "lesson", "old", "holds", 5, 3)
    assert claims.add_to_stored(results, "lesson") == 2
    claims.record("B10", "lesson", "new", "holds", 5, 3)
    claims.add_to_stored(results, "lesson")
    assert [(r["claim"], r["here"]) for r in claims.load_stored()] == [("B2", "old"), ("B10", "new")]


def test_unknown_claims_and_verdicts_are_refused(results):
    with pytest.raises(ValueError, match="there is no claim 'B11'; data/claims.json has A1, A2"):
        claims.record("B11", "lesson", "x", "holds", 1, 1)
    with pytest.raises(ValueError, match="the verdict on B1 is 'maybe'; choose one of holds, holds in part"):
        claims.record("B1", "lesson", "x", "maybe", 1, 1)
    assert claims.found(results, "lesson") == []


def test_a_file_that_is_not_a_verdict_is_named(results):
    claims.record("B4", "lesson", "here", claims.VERDICTS[0], 3, 1)
    folder = results / "claims" / "lesson"
    (folder / "._B4.json").write_bytes(b"\0\5\x16\7")  # a file manager's
    assert len(claims.found(results, "lesson")) == 1
    for text, told in [
        ("[]", "B2.json: .* JSON list"),
        ('{"claim": "B2"}', "B2.json is not a verdict of this version .it lacks scale, here, verdict"),
        ("[" * 100_000, "B2.json:1: .* 100 "),
    ]:
        (folder / "B2.json").write_text(text)
        with pytest.raises(ValueError, match=told):
            claims.found(results, "lesson")
