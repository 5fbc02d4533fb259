"""The raw data: files, archives, lists, rows of Parquet, and what is at a URL. Nothing here knows a dataset."""
