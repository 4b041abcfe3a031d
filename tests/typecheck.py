"Where a float is asked for, an int will do, as everywhere in Python."
import beartype as b

check = b.beartype(conf=b.BeartypeConf(is_pep484_tower=True))
