"""The job that turns the sources of a dataset into verified shards: its plan, ledger, tasks, judge and report."""
