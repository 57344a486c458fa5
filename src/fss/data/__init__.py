"""From a data set to batches: data modules, episode data sets, transforms and their options."""
