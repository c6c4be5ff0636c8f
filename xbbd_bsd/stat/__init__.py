"""What xbbstat(8) is made of: arithmetic, layouts, the screen.  Never imported by the daemon."""
