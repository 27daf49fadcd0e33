"""Making the method known to PEFT.

PEFT's list of methods is a closed enumeration, and both PEFT and transformers use the ``.value`` of
its members, so a plain string will not do: a real member is made here, once.
"""

from __future__ import annotations

from typing import Any

from peft.utils import PeftType

NAME = "BIAS_INJECTION"
PREFIX = "bias_injection_"
"""How the name of every parameter of the adapter begins."""


def _member() -> PeftType:
    known: Any = PeftType
    if NAME not in known._member_map_:
        # What the class statement of an enumeration does for each member; there is no public way
        # to add one afterwards. The maps serve PeftType["..."], PeftType("...") and iteration.
        member: Any = str.__new__(PeftType, NAME)
        member._name_ = member._value_ = NAME
        member.__objclass__ = PeftType
        member._sort_order_ = len(known._member_names_)
        known._member_names_.append(NAME)
        known._member_map_[NAME] = known._value2member_map_[NAME] = member
        # Enumerations refuse setattr on the class; type's own does not.
        type.__setattr__(PeftType, NAME, member)
    registered: PeftType = known._member_map_[NAME]
    return registered


BIAS_INJECTION = _member()
"""The member of ``peft.PeftType``."""
