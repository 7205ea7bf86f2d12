"""OpenAI's API as values: request bodies to jobs, generated tokens to answers. Pure, a folder for each endpoint.

types.py      the JSON types, field for field
request.py    a body to a job: check, prompt, tokens, sampling parameters, constraint
response.py   generated text and tokens to the bytes of an answer or a stream
"""
