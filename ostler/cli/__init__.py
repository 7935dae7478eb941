"""The command line: options in, exit code out; it composes the other parts."""
