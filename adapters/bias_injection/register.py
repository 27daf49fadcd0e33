"""Making the method known to PEFT.

PEFT's list of methods is a closed enumeration, and both PEFT and transformers use the ``.value`` of
its members, so a plain string will not do: a real member is made here, once.
"""

from __future__ import annotations

from typing import Any

from peft.utils import PeftType

NAME = "BIAS_INJECTION"
PREFIX = "bias_injection_"
"""Of every parameter of the adapter."""


def _member() -> PeftType:
    known: Any = PeftType
    if NAME in known._member_map_:
        found: PeftType = known._member_map_[NAME]
        return found
    member: Any = str.__new__(PeftType, NAME)
    member._name_ = NAME
    member._value_ = NAME
    member.__objclass__ = PeftType
    member._sort_order_ = len(known._member_names_)
    known._member_names_.append(NAME)
    known._member_map_[NAME] = member
    known._value2member_map_[NAME] = member
    type.__setattr__(PeftType, NAME, member)
    made: PeftType = member
    return made


BIAS_INJECTION = _member()
"""The member of ``peft.PeftType``."""
