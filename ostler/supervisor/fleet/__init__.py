"""The decisions about workers: pure state machines, events in, actions out."""
