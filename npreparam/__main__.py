"""`python -m npreparam`, the same as the console script."""

from npreparam.cli import main

if __name__ == "__main__":
    main()
