"Gaussians without faces."
