"""OpenAI's API as values: request bodies to jobs, generated tokens to replies. Pure. Each endpoint has a folder:

types.py      the JSON types, field for field
request.py    a body to a job: check, prompt, tokens, sampling parameters, constraint
response.py   generated text and tokens to the bytes of a JSON body or of a stream
"""
