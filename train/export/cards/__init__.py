"""Python code that model cards contain verbatim: it turns raw samples into model inputs."""
