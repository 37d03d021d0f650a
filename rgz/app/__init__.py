"""For people: the command line, surveys, the explorer."""
