from . import (
    check,
    cli,
    doctor,
    lessons,
    pipeline,
    plots,
    processes,
    progress_display,
    report,
    results_page,
    schedule,
    stamp,
)

__all__ = [
    "check",
    "cli",
    "doctor",
    "lessons",
    "pipeline",
    "plots",
    "processes",
    "progress_display",
    "report",
    "results_page",
    "schedule",
    "stamp",
]
