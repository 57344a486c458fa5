"""Lightning modules: training and testing of heads and base learners, optimiser groups, histories."""
