"""`python -m ostler`, the same as `ostler`."""

# A spawned worker imports this file as well, under another name (multiprocessing, "Safe importing of
# main module"), and must not start an arbiter of its own.
if __name__ == "__main__":
    import sys

    from ostler.cli.main import main

    sys.exit(main())
