"""What notebooks and commands use: the command line, the pipeline, the report, plots."""
