"""Access to raw data: files, archives, lists, Parquet rows and URLs. This package is independent of any dataset."""
