"""Where the rows of core36, encoder9, ipt120 and crossfit come from: one module per origin.

Each has `rows(task_id)`, which yields dicts with the slots of the card's template, "target" or "targets", and
for multiple choice "options"; and VERSION, raised when the rows it yields change. One whose archive is too
large to be read for each task has `stream(task_ids)` too: ids with their rows and notes, in one pass. One
whose data sets have test sets of their own has `test_rows(task_id)`; LIMITS are lengths other than those of
`pools`, and `depends(task_id)` is what rows depend on besides.
The rest are parts of `bigbench`: `bigbench_tasks` (files and readers), `records`, `passages` and `recast`,
and of `crossfit`: `crossfit_records`.
"""
