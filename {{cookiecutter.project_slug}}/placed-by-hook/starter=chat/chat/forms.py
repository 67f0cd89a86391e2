from django import forms
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.validators import RegexValidator
from django.db import IntegrityError, transaction
from django.utils.crypto import get_random_string
from django.utils.text import slugify

from .models import Membership, Room


class RoomForm(forms.ModelForm):
    """A new room of `user`."""

    class Meta:
        model = Room
        fields = ["name", "is_open"]

    def __init__(self, user, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.instance.owner = user
        # One line, whose letters stay in their order.
        one_line = RegexValidator(
            "[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]", "A name is one line of text.", inverse_match=True
        )
        self.fields["name"].validators.append(one_line)

    def clean(self):
        most = settings.CHAT_ROOMS_PER_USER
        if self.instance.owner.owned_rooms.count() >= most:
            raise forms.ValidationError(
                f"You have made {most} rooms, and more are not allowed. An administrator can delete those that are no"
                " longer needed."
            )
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
    username = forms.CharField(label="Add a member", max_length=150)

    def clean_username(self):
        try:
            return get_user_model().objects.get_by_natural_key(self.cleaned_data["username"])
        except get_user_model().DoesNotExist:
            self.fields["username"].widget.attrs["autofocus"] = True
            raise forms.ValidationError("Nobody has this name.") from None

    def save(self, room):
        """Let the user into the room. A second call changes nothing."""
        Membership.objects.get_or_create(room=room, user=self.cleaned_data["username"])


def new_suffix():
    return get_random_string(8, "abcdefghijkmnpqrstuvwxyz23456789")


@transaction.atomic
def save_with_member(room):
    room.save(force_insert=True)
    Membership.objects.create(room=room, user=room.owner)
