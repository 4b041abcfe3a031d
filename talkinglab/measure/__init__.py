"What is claimed, measured."
