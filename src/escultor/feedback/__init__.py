"""From feedback to training data.

    index       what holds of the log, lean, in a derived file: only new entries are read
    standing    what is held back, and how much an end user's word counts
    evidence    one prompt: its answers, and what each person made of each
    table       the routes, in their order; a new one is one function and one row
    resampling  pairs out of new answers to prompts whose answers displeased
    selecting   weights, caps, balance
    convert     all of it, from a store to data sets, with their card and advice

Everything is a pure function of what was said: order-free, idempotent, and the same whether the log was
read at once or in pieces.
"""
