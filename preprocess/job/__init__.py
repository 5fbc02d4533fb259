"""The job that turns a dataset's sources into verified shards: plan, ledger, tasks, judge and report."""
