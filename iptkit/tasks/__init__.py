"""Tasks: suites, few-shot sets, and readers of users' own files."""
