"""Where bytes come from and go to: ranges of files that are checked, files that appear whole or not at all."""
