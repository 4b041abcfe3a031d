"A head that moves."
