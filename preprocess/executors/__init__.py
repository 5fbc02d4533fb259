"""Executors: they run the tasks of a job, in processes of this machine or in a Ray cluster."""
