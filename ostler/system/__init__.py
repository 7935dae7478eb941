"""What ostler asks of the operating system: sockets, signals, pipes, cgroups, privileges, systemd."""
