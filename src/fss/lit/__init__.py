"""Lightning modules that train and test heads and base learners, optimiser groups, and the CSV log."""
