"""For people: the command line, the widgets, the explorer."""
