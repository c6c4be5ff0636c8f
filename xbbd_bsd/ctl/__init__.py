"""The verbs of xbbctl that are more than a request and a table, each kind a module."""
