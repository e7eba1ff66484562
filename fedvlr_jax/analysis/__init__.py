"""What can be said about a data set or a finished run; plain numpy."""
