"""`python -m maskstream` is the `maskstream` command."""

from .cli import run

if __name__ == "__main__":
    run()
