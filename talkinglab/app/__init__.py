"The library in a person's hands."
