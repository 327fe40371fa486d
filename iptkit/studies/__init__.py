"""Studies: their steps and jobs, the lessons' measurements, and verdicts on the papers' claims."""
