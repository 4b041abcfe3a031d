"Maths, media and records: knows no face and no Gaussian."
