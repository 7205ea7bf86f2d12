"""OpenAI's function tools on a model that knows none of them, or knows them in Mistral's way.

    calls.py      the values: tools, what is asked of them, calls, and what a stream of calls is made of
    wire.py       OpenAI's JSON, to those values and back
    documents.py  values to the documents that a template takes which knows tools
    prompt.py     values to plain words, for every other template; and how an answer that must call begins
    guide.py      what the engine may write
    parser.py     what the engine wrote, to calls

Pure: no I/O, no tokens. Refuses to run functions, and tools that are no functions.
"""
