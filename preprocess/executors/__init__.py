"""Where the work of a job runs: in processes of this machine."""
