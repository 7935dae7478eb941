"""The settings: their declarations, the kinds of their values, and how they are read and checked."""
