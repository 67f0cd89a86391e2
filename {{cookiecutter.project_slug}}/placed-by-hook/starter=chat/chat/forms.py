import re
import unicodedata

from django import forms
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.utils.crypto import get_random_string
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .models import Ban, Block, Membership, Room

# Other lines, and other directions.
NOT_ONE_LINE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]")
# Letters, and a symbol, that are blank.
BLANK = "\u115f\u1160\u3164\uffa0\u2800"


def validate_room_name(name):
    """Raise ValidationError unless `name` can be seen, and is one line, whose marks do not cover those above it."""
    kinds = "".join("Z" if c in BLANK else unicodedata.category(c)[0] for c in unicodedata.normalize("NFD", name))
    if NOT_ONE_LINE.search(name) or not set("LNPS") & set(kinds) or "MMMMM" in kinds:
        raise forms.ValidationError(_("A name is one line of text that can be seen."))


class RoomForm(forms.ModelForm):
    """A new room of `user`."""

    class Meta:
        model = Room
        fields = ["name", "is_open"]
        labels = {"name": gettext_lazy("Name")}

    def __init__(self, user, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.instance.owner = user
        self.fields["name"].validators.append(validate_room_name)

    def clean(self):
        most = settings.CHAT_ROOMS_PER_USER
        if self.instance.owner.owned_rooms.count() >= most:
            text = _(
                "You have made %(most)d rooms, and more are not allowed. An administrator can delete those that are no"
                " longer needed."
            )
            raise forms.ValidationError(text % {"most": most})
        return super().clean()

    def save(self):
        """Make the room, with its owner as the first member, and return it."""
        room = super().save(commit=False)
        # The slug of a name in another script is empty.
        slug = slugify(room.name)[:40].strip("-_") or "room"
        # The address of a closed room tells nobody else that there is one of this name.
        room.slug = slug if room.is_open and slug != "room" else f"{slug}-{new_suffix()}"
        try:
            save_with_member(room)
        except IntegrityError:
            room.slug = f"{slug}-{new_suffix()}"
            save_with_member(room)
        return room


class MemberForm(forms.Form):
    """Somebody whom `user` lets into the closed `room`."""

    username = forms.CharField(label=gettext_lazy("Add a member"), max_length=150)

    def __init__(self, room, user, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.room, self.user = room, user

    def clean_username(self):
        try:
            member = get_user_model().objects.get_by_natural_key(self.cleaned_data["username"])
        except get_user_model().DoesNotExist:
            raise self.refusal(_("Nobody has this name.")) from None
        if Ban.objects.filter(room=self.room, user=member).exists():
            raise self.refusal(_("This person is banned from the room."))
        if Block.objects.filter(user=member, blocked=self.user).exists():
            raise self.refusal(_("This person does not want to be added by you."))
        return member

    def refusal(self, text):
        self.fields["username"].widget.attrs["autofocus"] = True
        return forms.ValidationError(text)

    def save(self):
        """Let the user into the room. A second call changes nothing."""
        Membership.objects.get_or_create(room=self.room, user=self.cleaned_data["username"])


def new_suffix():
    return get_random_string(8, "abcdefghijkmnpqrstuvwxyz23456789")


@transaction.atomic
def save_with_member(room):
    room.save(force_insert=True)
    Membership.objects.create(room=room, user=room.owner)
