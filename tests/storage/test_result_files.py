import pytest

from iptkit.storage import result_files


def test_results_are_json_lines(tmp_path):
    rows = [{"task": "a", "score": 0.5}, {"task": "é", "score": None}]
    result_files.write(tmp_path / "r.jsonl", rows)
    assert result_files.read(tmp_path / "r.jsonl") == rows
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 2
    with pytest.raises(FileNotFoundError, match="there is no file .*nothing.jsonl; make it with the command"):
        result_files.read(tmp_path / "nothing.jsonl")
    (tmp_path / "r.jsonl").write_text('{"task": "a"}\n{"task": \n')
    with pytest.raises(
        ValueError, match=r"r.jsonl:2: not valid JSON \(.*each line needs one whole JSON object"
    ):
        result_files.read(tmp_path / "r.jsonl")
    for line, message in (
        ("3", "a JSON number is given"),
        ("[" * 100_000, "more than 100 deep"),
        ('{"a":1,"a":2}', "twice"),
    ):
        (tmp_path / "r.jsonl").write_text(f'{{"task": "a"}}\n{line}\n')
        with pytest.raises(ValueError, match=f"r.jsonl:2: .*{message}"):
            result_files.read(tmp_path / "r.jsonl")
    (tmp_path / "r.jsonl").write_text('{"task": "a", "score": 1}\n\n{"task": "b"}\n')
    with pytest.raises(ValueError, match="r.jsonl:3: the row lacks seed, score; restore the file"):
        result_files.read(tmp_path / "r.jsonl", ("task", "seed", "score"))
    (tmp_path / "r.jsonl").write_text('{"task": "a", "score": "high"}\n')
    with pytest.raises(ValueError, match="r.jsonl:1: score is 'high', a number or null is needed"):
        result_files.read(tmp_path / "r.jsonl")


def test_a_number_that_no_float_holds_is_no_score(tmp_path):
    (tmp_path / "r.jsonl").write_text(f'{{"task": "a", "score": {10**400}}}\n')
    with pytest.raises(ValueError, match="r.jsonl:1: score is 1000.*a number or null is needed"):
        result_files.read(tmp_path / "r.jsonl")
