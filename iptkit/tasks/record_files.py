"""Reads the records of a user's file: JSON lines, CSV, TSV, Parquet, CoNLL, a saved data set.

Nothing is executed and nothing is changed. Tables of pyarrow are validated before their values are used.
Names of classes (`ClassLabel`) are those that the library `datasets` stores in a table's metadata.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from iptkit.storage import messages, reading
from iptkit.tasks import columns, conll

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".conll": "conll"}
ENDINGS = tuple(FORMATS)
IDS = ("", "index", "id", "idx", "guid", "uid")  # columns of numbers that mean nothing for a task
ENCLOSED = re.compile(r'"(?:[^"]|"")*"')
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}  # of a CSV file
SEPARATOR = re.compile(r'"?sep=([,;\t])"?\r?\n')  # a first line by Excel
SAVED = "state.json"  # in a folder that `datasets` saved
WANTED = "give the path of a .jsonl, .csv, .tsv, .parquet or .conll file with one task"


@dataclass(frozen=True)
class Records:
    """The records of one file, as far as they can be read.

    Attributes:
      path: the file; for a data set in memory, its name.
      kind: one of FORMATS' values, or "dataset".
      columns: their names. Of JSON lines, those of all lines.
      rows: values by column, by the line or the record (from 1).
      problems: (line, what is wrong and how to fix it) of the others.
      names: class names of the columns that have them.
      first: the first row of a table without a header, else empty.
    """

    path: PurePath
    kind: str
    columns: tuple[str, ...] = ()
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    first: tuple[str, ...] = ()


def read(
    path: str | Path, given: columns.Given, kind: str = "", comment: str = "", has_header: bool | None = None
) -> Records:
    """Return the records of a file.

    Args:
      path: a file, or a folder that `datasets` saved.
      given: the columns that the user named, which tell a header from an example.
      has_header: of a CSV or TSV file; None to find out.
      kind: one of FORMATS' values; "" for that of the ending.
      comment: how comments in CoNLL files begin.
    Raises: FileNotFoundError if there is no such file; ValueError if it cannot be read at all.
    """
    path = Path(path)
    if os.path.isdir(path) and os.path.lexists(path / SAVED):
        return _saved(path)
    kind = kind or FORMATS.get(path.suffix.lower(), "conll")
    if kind == "conll":
        return _conll(path, given, comment)
    if kind in ("csv", "tsv"):
        cells, problems, mark = (_csv if kind == "csv" else _tsv)(path)
        return _with_header(path, kind, given, has_header, cells, problems, mark)
    return _jsonl(path) if kind == "jsonl" else _parquet(path)


def is_plain(name: object) -> bool:
    """Return whether a value is the name of a file, without a path."""
    return isinstance(name, str) and name == os.path.basename(name) and name not in ("", os.curdir, os.pardir)


def of_table(path: str | PurePath, table: pa.Table, kind: str) -> Records:
    """Return the records of a table.

    Raises: ValueError that names `path` if its values are damaged.
    """
    import pyarrow as pa

    path = PurePath(path)
    names = _class_names(table.schema.metadata or {})
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        return Records(path, kind, problems=[(1, f"the column {twice[0]!r:.80} is there twice; rename one")])
    try:
        table.validate(full=True)
        of = {name: table.column(name).to_pylist() for name in table.column_names if _is_read(table, name)}
    except (pa.ArrowException, ValueError, TypeError, OverflowError, OSError) as error:
        raise ValueError(f"{path} is damaged ({_reason(error)})") from error
    for name, known in names.items():
        if name in of:
            of[name] = [_named(value, known) for value in of[name]]
    rows = {i + 1: {name: values[i] for name, values in of.items()} for i in range(table.num_rows)}
    return Records(path, kind, tuple(of), rows, names={n: v for n, v in names.items() if n in of})


# ---- formats -------------------------------------------------------------------------------------
def _jsonl(path: Path) -> Records:
    rows: dict[int, dict[str, Any]] = {}
    problems = []
    for line in reading.json_lines(path, WANTED):
        if line.problem:
            problems.append((line.number, line.problem))
        else:
            rows[line.number] = line.value
    if not rows and not problems:
        problems.append((1, "the file is empty; write one JSON object per line, with input and targets"))
    return Records(
        path, "jsonl", tuple(dict.fromkeys(n for row in rows.values() for n in row)), rows, problems
    )


def _is_enclosed(cells: Sequence[str]) -> bool:
    """Return whether quotes enclose cells, and every quote inside these is doubled."""
    quoted = [cell for cell in cells if cell.startswith('"')]
    return all(map(ENCLOSED.fullmatch, quoted)) and any('""' in cell[1:-1] for cell in quoted)


Cells = list[tuple[int, list[str]]]  # line number, cells
Problems = list[tuple[int, str]]  # line number, what is wrong


def _csv(path: Path) -> tuple[Cells, Problems, str]:
    """Read a CSV file; return its cells, problems and separator.

    Excel names the separator in a first line `sep=;`. Else it is the one that gives most rows as many cells
    as the first row.
    """
    text = reading.read_text(path, WANTED)
    if named := SEPARATOR.match(text):
        return *_cells(text[named.end() :], named[1], is_quoted=True, first=2), named[1]
    head = text.lstrip("\r\n").split("\n", 1)[0]
    tried = [(*_cells(text, mark, is_quoted=True), mark) for mark in SEPARATORS if mark in head]
    return max(tried or [(*_cells(text, ",", is_quoted=True), ",")], key=_regularity)


def _regularity(read: tuple[Cells, Problems, str]) -> tuple[bool, float]:
    """How well a separator fits; of two that fit equally, `max` takes the first."""
    rows, problems, _ = read
    lengths = [len(cells) for _, cells in rows]
    is_table = bool(lengths) and lengths[0] > 1 and not problems
    return is_table, lengths.count(lengths[0]) / len(lengths) if is_table else 0.0


def _tsv(path: Path) -> tuple[Cells, Problems, str]:
    """Read a TSV file; quotes are part of its texts unless they enclose cells as in a CSV file."""
    text = reading.read_text(path, WANTED)
    rows, problems = _cells(text, "\t", is_quoted=False)
    if _is_enclosed([cell for _, cells in rows for cell in cells]):
        return *_cells(text, "\t", is_quoted=True), "\t"
    if len({len(cells) for _, cells in rows}) > 1 and '"' in text:
        quoted, wrong = _cells(text, "\t", is_quoted=True)
        if not wrong and len({len(cells) for _, cells in quoted}) == 1:
            return quoted, wrong, "\t"
    return rows, problems, "\t"


def _cells(text: str, delimiter: str, is_quoted: bool, first: int = 1) -> tuple[Cells, Problems]:
    """Return the rows of a text with the number of their first line, and the problem that ended them.

    Args:
      text: of the table.
      delimiter: between the cells.
      is_quoted: cells may be enclosed in quotes.
      first: number of the text's first line in its file.
    """
    rows: Cells = []
    if not is_quoted:
        for number, line in enumerate(text.split("\n"), first):
            if line.strip():
                rows.append((number, line.removesuffix("\r").split(delimiter)))
        return rows, []
    text = text.replace("\r\n", "\n")  # also inside texts
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = first
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((number, cells))
            number = reader.line_num + first
    except csv.Error as error:
        way = "put a text with quotes in double quotes, and write each quote inside it twice"
        return rows, [(number, f"the row cannot be read ({error}); {way}")]
    return rows, []


def _with_header(
    path: Path,
    kind: str,
    given: columns.Given,
    has_header: bool | None,
    cells: Cells,
    problems: Problems,
    mark: str,
) -> Records:
    if not cells:
        empty = (
            1,
            "the file is empty; write a line with the names of the columns, then one example per line",
        )
        return Records(path, kind, problems=problems or [empty])
    line, head = cells[0]
    if _has_header(path, kind, given, head, line) if has_header is None else has_header:
        names, cells, what = [name.strip() for name in head], cells[1:], f"the header has {len(head)}"
        first: tuple[str, ...] = ()
    else:
        names, what, first = [*map(str, range(len(head)))], f"the first has {len(head)}", tuple(head)
        if not given:
            names = ["input", "target"]
    wrong = [(n, len(row)) for n, row in cells if len(row) != len(names)]
    if kind == "tsv":
        few, many = "add what is missing", "a text must not have tabs"
    else:
        few = "add what is missing, or put a text with line breaks in double quotes"
        many = f"put a text with {SEPARATORS[mark]} in double quotes"
    problems = problems + [
        (n, f"the row has {count} cell(s), but {what}; {few if count < len(names) else many}")
        for n, count in wrong
    ]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        problems.append((line, f"the column {twice[0]!r:.80} is there twice; rename one"))
    rows = {n: dict(zip(names, row, strict=True)) for n, row in cells if len(row) == len(names)}
    return Records(path, kind, tuple(names), rows, problems, first=first)


def _has_header(path: Path, kind: str, given: columns.Given, head: list[str], line: int) -> bool:
    """Return whether the first row of a table names its columns; raise ColumnsError if nobody can tell."""
    head = [name.strip() for name in head]
    if given:
        wanted = {str(name) for names in given.values() for name in columns.parts(names)}
        return not all(map(str.isdecimal, wanted)) or wanted <= {*head}
    try:
        roles = columns.find(head, {}, str(path)).of
    except columns.ColumnsError:  # it has several known names, and `find` will say so again
        return True
    others = [name for name in head if roles.get("input") != (name,) and name.lower() not in IDS]
    if "input" in roles and ("target" in roles or not others):  # a test set may lack the target
        return True
    if kind == "tsv" and len(head) == 2 and not roles:
        return False
    raise columns.ColumnsError(
        f"{path}:{line}: the first line ({columns.listed(head)}) does not name the columns of the input and "
        f"of the target as the kit knows them; name them with --columns {columns.example(head)}, or, if "
        "that line is an example, by their places from 0: --columns input=0,target=1 (columns= in Python, or "
        "on the card)"
    )


def _parquet(path: Path) -> Records:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading.opened(path, WANTED) as file:
        data = file.read()
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as stored:
            table = stored.read()
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} is not a Parquet file, or is damaged ({_reason(error)})") from error
    return of_table(path, table, "parquet")


def _saved(path: Path) -> Records:
    """Read a folder that `Dataset.save_to_disk` wrote; its Arrow files are read here, without `datasets`."""
    import pyarrow as pa

    files = reading.read_json(path / SAVED).get("_data_files")
    files = files if isinstance(files, list) and files else [None]
    names = [of.get("filename") if isinstance(of, dict) else None for of in files]
    if not all(map(is_plain, names)):
        raise ValueError(f"{path / SAVED}: _data_files does not list files of this folder; save it again")
    tables = []
    for name in names:
        file = path / str(name)
        data = reading.read_bytes(file)
        try:
            with pa.ipc.open_stream(pa.BufferReader(data)) as stream:
                tables.append(stream.read_all())
            tables[-1].validate(full=True)
        except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
            raise ValueError(f"{file} is not an Arrow file, or is damaged ({_reason(error)})") from error
    try:
        table = pa.concat_tables(tables)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path}: its files have different columns ({_reason(error)})") from error
    about = path / "dataset_info.json"
    if os.path.lexists(about):  # the table's own metadata may lack the names of classes
        info = {"info": {"features": reading.read_json(about).get("features")}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    return of_table(path, table, "dataset")


def _conll(path: Path, given: columns.Given, comment: str) -> Records:
    places = {role: given.get(role, default) for role, default in (("input", 0), ("target", -1))}
    for role, place in places.items():
        if not str(place).lstrip("-").isdecimal():
            raise columns.ColumnsError(
                f"{path}: columns name {place!r:.80} for {role}, but those of a CoNLL file are counted: 0 is "
                "the first, -1 the last: --columns input=0,target=-1"
            )
    found = conll.sentences(path, int(str(places["input"])), int(str(places["target"])), comment)
    rows = {
        lines[0][0]: {"input": " ".join(w for _, w, _ in lines), "target": " ".join(t for *_, t in lines)}
        for lines in found
    }
    return Records(path, "conll", ("input", "target"), rows)


# ---- tables --------------------------------------------------------------------------------------
def _is_read(table: pa.Table, name: str) -> bool:
    """Return whether a column can hold texts, numbers, or lists or structures of them."""
    import pyarrow as pa

    waiting = [table.schema.field(name).type]
    while waiting:
        of = waiting.pop()
        if pa.types.is_struct(of):
            waiting += [of.field(i).type for i in range(of.num_fields)]
        elif pa.types.is_nested(of) or pa.types.is_dictionary(of):
            value = getattr(of, "value_type", None)
            if value is None:
                return False
            waiting.append(value)
        elif not (
            pa.types.is_primitive(of)
            or pa.types.is_string(of)
            or pa.types.is_large_string(of)
            or pa.types.is_string_view(of)
            or pa.types.is_null(of)
        ):
            return False
        elif pa.types.is_temporal(of):
            return False
    return True


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the class names of the columns of a table, from the metadata of `datasets`."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    found = {}
    for name, of in features.items() if isinstance(features, dict) else ():
        while isinstance(of, dict) and "names" not in of and isinstance(of.get("feature"), dict):
            of = of["feature"]  # of a list
        names = of.get("names") if isinstance(of, dict) and of.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and names and all(isinstance(n, str) for n in names):
            found[name] = tuple(names)
    return found


def _named(value: Any, names: Sequence[str]) -> Any:
    """Return the name of a class by its number; null for -1, which marks examples without a label."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else None
    return value


def _reason(error: Exception) -> str:
    return messages.visible(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]
