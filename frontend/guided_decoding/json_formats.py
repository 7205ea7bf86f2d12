"""The supported `format`s of JSON Schema, and of pydantic's and zod's, as regular expressions.

Each matches only valid text. Formats that are not here, such as `password`, are annotations. They are narrower than
their standards: years from 1000 on, no leap seconds, no quoted mail addresses.
"""

_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LEAP_YEAR = r"([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)"
_DATE = (
    r"([1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    rf"|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-]{_CLOCK})"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?"
_GROUP = r"[0-9a-f]{1,4}"
_URI_CHARACTER = r"[A-Za-z0-9._~!$&'()*+,;=:@-]"

_HEX = "[0-9a-f]"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_IPV6 = rf"(({_GROUP}:){{7}}{_GROUP}|({_GROUP}:){{1,6}}:{_GROUP}|::({_GROUP}:){{0,5}}{_GROUP}|::)"
_IPV4_NETWORK = rf"({_IPV4}/32|({_OCTET}\.){{3}}0/24|({_OCTET}\.){{2}}0\.0/16|{_OCTET}\.0\.0\.0/8)"
_EMAIL = rf"[A-Za-z0-9_+-]{{1,15}}(\.[A-Za-z0-9_+-]{{1,15}}){{0,3}}@{_LABEL}(\.{_LABEL}){{1,3}}"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
_PATH = rf"(/{_URI_CHARACTER}*)*"
_AFTER_PATH = rf"(\?({_URI_CHARACTER}|[/?])*)?(#({_URI_CHARACTER}|[/?])*)?"
_URI = rf"[a-z][a-z0-9+.-]*://{_LABEL}(\.{_LABEL}){{0,4}}(:[1-9][0-9]{{0,4}})?{_PATH}{_AFTER_PATH}"
_RELATIVE = rf"({_URI}|/?[A-Za-z0-9._~-]+{_PATH}{_AFTER_PATH})"
_POINTER = "(/[A-Za-z0-9 _.$-]*)*"
_BASE64 = "([A-Za-z0-9{}]{{4}})*"
_PLAIN_REGEX = r"(([A-Za-z0-9 _,:@/-]|\\[dws.]|\.|\[[a-z]-z\])[*+?]?)*"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": r"P([0-9]+W|[0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D"
    r"|([0-9]+D)?T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))",
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOST,
    "idn-hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "ipvanyaddress": f"({_IPV4}|{_IPV6})",
    "ipv4network": _IPV4_NETWORK,
    "ipv6network": f"{_IPV6}/128",
    "ipvanynetwork": f"({_IPV4_NETWORK}|{_IPV6}/128)",
    "ipv4interface": f"{_IPV4}/([12]?[0-9]|3[0-2])",
    "ipv6interface": f"{_IPV6}/([1-9]?[0-9]|1[01][0-9]|12[0-8])",
    "ipvanyinterface": f"{_IPV4}/([12]?[0-9]|3[0-2])",
    "uuid": rf"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}",
    **{
        f"uuid{version}": rf"{_HEX}{{8}}-{_HEX}{{4}}-{version}{_HEX}{{3}}-[89ab]{_HEX}{{3}}-{_HEX}{{12}}"
        for version in range(1, 9)
    },
    "uri": _URI,
    "url": _URI,
    "iri": _URI,
    "uri-reference": _RELATIVE,
    "iri-reference": _RELATIVE,
    "uri-template": _RELATIVE,
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(0|[1-9][0-9]{{0,8}})(#|{_POINTER})",
    "regex": _PLAIN_REGEX,
    "byte": _BASE64.format("+/"),
    "base64": _BASE64.format("+/"),
    "base64url": _BASE64.format("_-"),
}
