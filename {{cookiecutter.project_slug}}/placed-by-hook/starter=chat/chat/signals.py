"""Whoever may no longer be in a room is out of it at once."""

from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from realtime.fanout import notify_members

from .feed import room_group
from .models import Membership, Room


@receiver(post_delete, sender=Membership)
def check_sockets_of_member(sender, instance, **kwargs):
    notify_members({"type": "chat.access", "group": room_group(instance.room_id), "user": instance.user_id})


@receiver([post_save, post_delete], sender=Room)
def check_sockets_of_room(sender, instance, created=False, raw=False, **kwargs):
    if not created and not raw:
        notify_members({"type": "chat.access", "group": room_group(instance.pk), "user": None})
