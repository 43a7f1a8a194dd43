"""From feedback to training data.

    raw_log           reads feedback and answers from the log into the tables, without building records
    index             what holds of the log, in a derived file that follows it; its rows: index_tables
    abuse_rules       what is held back; trust: how far each person and each kind of event is believed
    evidence          one prompt: its answers, and what each person made of each
    labelling_rules   from feedback to drafts of items, in order; a new rule is one function and one row
    drafting          which prompts are drafted again, and with what evidence
    resampled_pairs   pairs of new answers to prompts whose answers displeased
    selection         what is trained on: contradictions, weights, caps, balance (weighting)
    items             selected drafts with their texts, as rows
    conversion        all of it, from a store to datasets with their card and advice

Everything is a pure function of the recorded feedback: neither the order or repetition of events matters,
nor whether the log was read at once or in pieces.
"""
