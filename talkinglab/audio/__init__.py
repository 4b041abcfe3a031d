"What a mouth hears."
