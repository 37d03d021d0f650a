"""``python -m rgz``: the same as the ``rgz`` command."""

from rgz.app.cli import main

if __name__ == "__main__":
    main()
