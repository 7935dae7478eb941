"""What the arbiter and its workers agree on: messages, assignments, signals, shared memory."""
