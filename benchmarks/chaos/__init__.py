"""Everything that can go wrong, at random moments, and what the server makes of it.

    python -m benchmarks.chaos --seconds 600

The real `local-llm serve` runs over fake engines (or the real ones) while clients come, leave, read slowly
and send rubbish; workers, their nannies and the supervisor itself are killed; workers are stopped; model
folders break, misbehave, vanish and come back. What each actor decides comes from the seed alone, so a seed
repeats the decisions; when they strike also depends on the machine.

    asking      what the clients ask, drawn from the seed
    clients     sends it, and notes what came back
    judging     pure: was that a complete answer, or a proper error?
    folders     the models, and what is done to them
    faults      what is done to processes
    program     the server: its lives, its log, its memory
    leftovers   what must not be there at the end
    scenario    how wild it gets, with which settings
    storm       all of them together, in phases
    report      the figures
"""
