"""Make open rooms of the chat starter with the slugs of the arguments."""

import sys

from chat.models import Room

Room.objects.bulk_create(Room(name=slug, slug=slug) for slug in sys.argv[1:])
