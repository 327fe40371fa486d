"""Where the rows of core36 come from: one module per origin.

Each has `rows(task_id)`, which yields dicts with the slots of the card's template, "target" or "targets", and
for multiple choice "options"; and VERSION, raised when the rows it yields change.
"""
