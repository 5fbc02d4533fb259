"""Executors run the tasks of a job, in local processes or on a Ray cluster."""
