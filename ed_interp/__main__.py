"""``python -m ed_interp``: the command line."""

from ed_interp.cli import main

if __name__ == "__main__":
    main()
