from django import forms
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.utils.crypto import get_random_string
from django.utils.text import slugify

from .models import Membership, Room


class RoomForm(forms.ModelForm):
    class Meta:
        model = Room
        fields = ["name", "is_open"]

    def save(self, user):
        """Make the room, with `user` as its first member, and return it."""
        room = super().save(commit=False)
        # Nothing is left of names in many scripts.
        slug = slugify(room.name)[:40].strip("-_")
        room.slug = slug or f"room-{new_suffix()}"
        try:
            save_with_member(room, user)
        except IntegrityError:
            room.slug = f"{slug}-{new_suffix()}"
            save_with_member(room, user)
        return room


class MemberForm(forms.Form):
    username = forms.CharField(label="Add a member", max_length=150)

    def clean_username(self):
        try:
            return get_user_model().objects.get_by_natural_key(self.cleaned_data["username"])
        except get_user_model().DoesNotExist:
            raise forms.ValidationError("Nobody has this name.") from None

    def save(self, room):
        """Let the user into the room; nothing happens if they are in it."""
        Membership.objects.get_or_create(room=room, user=self.cleaned_data["username"])


def new_suffix():
    return get_random_string(8, "abcdefghijkmnpqrstuvwxyz23456789")


@transaction.atomic
def save_with_member(room, user):
    room.save(force_insert=True)
    Membership.objects.create(room=room, user=user)
