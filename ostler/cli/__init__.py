"""The command `ostler`: reads its options, runs a server or an arbiter, and returns an exit code."""
