"""A chat template with the peculiarities of Mistral's v3 templates.

The tools come before the last user message. Ids must have nine characters. The system prompt is shown only if the last
message is the user's. Calls are not turns. Text beside a call is dropped. Descriptions and results are not escaped.
"""

CHAT_TEMPLATE = """\
{%- set system = messages[0].content if messages[0].role == 'system' else none -%}
{%- set turns = messages[1:] if system is not none else messages -%}
{%- set users = turns | selectattr('role', 'equalto', 'user') | list -%}
{%- set count = namespace(turns=0) -%}
{%- macro nine(id) -%}
  {%- if id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif -%}"{{ id }}"
{%- endmacro -%}
{{- bos_token -}}
{%- for m in turns -%}
  {%- if m.role != 'tool' and m.tool_calls is not defined -%}
    {%- if (m.role == 'user') != (count.turns % 2 == 0) %}{{ raise_exception('take turns') }}{% endif -%}
    {%- set count.turns = count.turns + 1 -%}
  {%- endif -%}
  {%- if m.role == 'user' -%}
    {%- if tools and m == users[-1] -%}
      {{- '[AVAILABLE_TOOLS] [' -}}
      {%- for tool in tools -%}
        {{- '{"type": "function", "function": {"name": "' + tool.function.name + '"' -}}
        {%- if tool.function.description %}{{ ', "description": "' + tool.function.description + '"' }}{% endif -%}
        {{- ', "parameters": ' + tool.function.parameters | tojson + '}}' + ('' if loop.last else ', ') -}}
      {%- endfor -%}
      {{- '][/AVAILABLE_TOOLS]' -}}
    {%- endif -%}
    {{- '[INST] ' + (system + '\\n\\n' if loop.last and system is not none else '') + m.content + '[/INST]' -}}
  {%- elif m.tool_calls is defined -%}
    {{- '[TOOL_CALLS] [' -}}
    {%- for call in m.tool_calls -%}
      {{- (call.function | tojson)[:-1] + ', "id": ' + nine(call.id) + '}' + ('' if loop.last else ', ') -}}
    {%- endfor -%}
    {{- ']' + eos_token -}}
  {%- elif m.role == 'tool' -%}
    {{- '[TOOL_RESULTS] {"content": ' + m.content + ', "call_id": ' + nine(m.tool_call_id) + '}[/TOOL_RESULTS]' -}}
  {%- else -%}
    {{- ' ' + m.content + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""
