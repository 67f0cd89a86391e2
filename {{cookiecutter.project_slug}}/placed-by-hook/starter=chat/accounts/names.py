"""
Rules for the names of users, so that no user can be mistaken for another one.

Names follow PRECIS (RFC 8265, UsernameCaseMapped), which refuses spaces and what cannot be seen, and have one script
(https://www.unicode.org/reports/tr39/#Restriction_Level_Detection). They are stored in lower case.
"""

import string
import unicodedata
from functools import cache
from itertools import islice, product

from confusable_homoglyphs.categories import alias, unique_aliases
from confusable_homoglyphs.confusables import confusables_data
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from precis_i18n import get_profile

PROFILE = get_profile("UsernameCaseMapped")
# Scripts that are written together, beside each one alone.
WRITING_SYSTEMS = [{"HAN", "HIRAGANA", "KATAKANA"}, {"HAN", "HANGUL"}, {"HAN", "BOPOMOFO"}]
# Those whose letters can make up a word that looks like one of ASCII, and how many such words are looked up in each.
LOOK_ALIKE = ["CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"]
MAX_LOOK_ALIKES = 100
# Characters of a name. What is longer is refused unread: to fold a megabyte takes seconds.
MAX_LENGTH = 150
# More marks on one letter would cover the lines above (UTS 39, section 5.4).
MAX_MARKS = 4


def fold(name):
    """
    Return `name`, a str, as it is stored and looked up. Names that are not allowed are only normalized.

    What cannot be stored, above MAX_LENGTH, is returned as it is.
    """
    if not isinstance(name, str) or len(name) > MAX_LENGTH:
        return name
    try:
        return PROFILE.enforce(name)
    except UnicodeEncodeError:
        return unicodedata.normalize("NFKC", name)


def validate_name(name):
    """Raise ValidationError, with a sentence for the person who chose `name`, unless it is allowed."""
    if len(name) > MAX_LENGTH:
        # The field says so.
        return
    try:
        name = PROFILE.enforce(name)
    except UnicodeEncodeError:
        raise ValidationError(
            _("A name has letters and digits, and no spaces or characters that cannot be seen.")
        ) from None
    # PRECIS allows all signs of ASCII.
    if signs := sorted(set(name) & (set(string.punctuation) - set("@.+-_"))):
        text = _("A name cannot have %(signs)s in it: of signs, only @ . + - and _ are allowed.")
        raise ValidationError(text % {"signs": " ".join(signs)})
    if not any(map(str.isalnum, name)):
        raise ValidationError(_("A name needs a letter or a digit."))
    scripts = unique_aliases(name) - {"COMMON", "INHERITED"}
    if len(scripts) > 1 and not any(scripts <= system for system in WRITING_SYSTEMS):
        mixed = ", ".join(sorted(script.capitalize() for script in scripts))
        raise ValidationError(_("The letters of a name are of one script; these are %(mixed)s.") % {"mixed": mixed})
    if "M" * (MAX_MARKS + 1) in "".join(unicodedata.category(c)[0] for c in unicodedata.normalize("NFD", name)):
        raise ValidationError(_("This name has too many marks on one letter."))


def validate_not_reserved(name):
    """Raise ValidationError if `name` is one of ACCOUNTS_RESERVED_NAMES, or would be taken for one: adm1n, ad-min."""
    if len(name) <= MAX_LENGTH and skeleton(name) in map(skeleton, settings.ACCOUNTS_RESERVED_NAMES):
        raise ValidationError(_("This name is reserved, or looks like one that is. Choose another one."))


def skeleton(name):
    """Return a str that is the same for names which look alike."""
    letters = (look_of(c) for c in unicodedata.normalize("NFD", fold(name)) if c.isalnum())
    return "".join(letters).lower().translate(str.maketrans("i10", "llo")).replace("rn", "m").replace("vv", "w")


def look_of(character):
    """Return the ASCII letter or digit that `character` looks like; without one, itself."""
    if character.isascii():
        return character
    looks = (look["c"] for look in confusables_data.get(character, ()))
    return next((look for look in looks if look.isascii()), character)


def look_alikes(name):
    """
    Return the names that look like `name`, a str as fold() returns it, in other scripts: a set.

    Whole-script confusables (https://www.unicode.org/reports/tr39/#Whole_Script_Confusables): "coco" in Cyrillic.
    """
    latin = "".join(map(look_of, name))
    if not latin.isascii():
        return set()
    found = {latin}
    for script in LOOK_ALIKE:
        words = product(*[twins(c, script) if c.isalpha() else [c] for c in latin])
        found.update(map("".join, islice(words, MAX_LOOK_ALIKES)))
    return found - {name}


@cache
def twins(letter, script):
    """Return the letters of `script` that look like `letter`, one of ASCII."""
    looks = [look["c"] for look in confusables_data.get(letter, ())]
    return [c for c in looks if len(c) == 1 and alias(c) == script and fold(c) == c]
