"""`python -m maskstream` is the `maskstream` command."""

from .cli import main

if __name__ == "__main__":
    main()
