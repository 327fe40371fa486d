"""Where the rows of core36, encoder9 and ipt120 come from: one module per origin.

Each has `rows(task_id)`, which yields dicts with the slots of the card's template, "target" or "targets", and
for multiple choice "options"; and VERSION, raised when the rows it yields change. One whose archive is too
large to be read for each task has `stream(task_ids)` too: ids with their rows and notes, in one pass.
The rest are parts of `bigbench`: `bigbench_tasks` (files and readers), `records`, `passages` and `recast`.
"""
