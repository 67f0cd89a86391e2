"""Close the sockets of users who may no longer be in a room, at once. The next poll finds changes by update()."""

from django.db.models.signals import post_delete, post_save, pre_save
from django.dispatch import receiver

from realtime import notify_consumers

from .models import Ban, Membership, Reading, Room
from .rooms import room_group


@receiver(post_save, sender=Membership)
def show_room_to_member(sender, instance, created=False, raw=False, **kwargs):
    """Put the room into the member's list. What was said before they came is not unread."""
    if created and not raw:
        last_seq = Room.objects.values_list("last_seq", flat=True).get(pk=instance.room_id)
        pair = {"room_id": instance.room_id, "user_id": instance.user_id}
        Reading.objects.get_or_create(**pair, defaults={"read_seq": last_seq})


@receiver(post_save, sender=Ban)
@receiver(post_delete, sender=Membership)
def check_sockets_of_member(sender, instance, **kwargs):
    tell(instance.room_id, instance.user_id)


@receiver(pre_save, sender=Membership)
def check_sockets_of_former_member(sender, instance, raw=False, **kwargs):
    """Check the former user and room too: a membership may be given to somebody else, or moved to another room."""
    before = None if raw or instance._state.adding else Membership.objects.filter(pk=instance.pk).first()
    if before is not None and (before.room_id, before.user_id) != (instance.room_id, instance.user_id):
        tell(before.room_id, before.user_id)


@receiver([post_save, post_delete], sender=Room)
def check_sockets_of_room(sender, instance, created=False, raw=False, **kwargs):
    if not created and not raw:
        tell(instance.pk)


def tell(room_id, user_id=None):
    """Have all processes check who is in a room, or only one user, when the transaction commits."""
    notify_consumers(room_group(room_id), {"type": "chat.access", "user": user_id})
