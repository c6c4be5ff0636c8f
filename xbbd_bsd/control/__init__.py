"""The operator's way to a running daemon: names, values, and a socket."""
