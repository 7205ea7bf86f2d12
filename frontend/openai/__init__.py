"""OpenAI's wire types, field for field, one module per endpoint: what a body may hold, and what an answer looks like.

Refuses behaviour: what the fields mean is decided in parameters.py and beside each endpoint. Fields that are not
declared here are kept aside, so that those can refuse them or report them.
"""
