"Lego parts: modules and pure losses; no data, no optimiser, no files."
