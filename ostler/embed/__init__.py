"""ostler from code: ostler.run, Config and Server."""
