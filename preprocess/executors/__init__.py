"""Executors: they run the tasks of a job, here in processes of this machine."""
