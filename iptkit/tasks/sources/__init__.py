"""Readers of the data sets behind core36, encoder9, ipt120, encoders and crossfit: one module per origin.

Every such module has

    rows(task_id)      yields dicts with the slots of the card's template, "target" or "targets", and for
                       multiple choice "options"
    VERSION            is raised when these rows change

and may have

    stream(task_ids)   yields tasks with their rows and notes in one pass over a large archive
    test_rows(task_id) yields the rows of the data set's own test set
    LIMITS             maximum lengths, if they differ from those of `pools`
    depends(task_id)   what the rows depend on besides VERSION

The other modules are parts of `bigbench` (`bigbench_tasks`, `records`, `passages` and `recast`) and of
`crossfit` (`crossfit_records`).
"""
