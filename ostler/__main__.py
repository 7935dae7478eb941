"""Runs the command `ostler` for `python -m ostler`."""

# A spawned worker also imports this file, under another name (multiprocessing, "Safe importing of main
# module"). It must not start an arbiter of its own.
if __name__ == "__main__":
    import sys

    from ostler.cli.main import main

    sys.exit(main())
