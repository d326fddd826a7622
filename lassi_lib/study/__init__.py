"""Parameters, experiments, cached stages, statistics, verdicts and the execution of notebooks."""
