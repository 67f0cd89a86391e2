import itertools
import uuid

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from chat.models import Room, post_message

LINES = [
    ("ada", "Good morning! Is anybody here?"),
    ("grace", "Since six. The compiler is done."),
    ("ada", "مرحبا، كيف الحال؟"),
    ("grace", "Fine. I found a moth in the relay 🦋"),
    ("ada", "Keep it.\nTape it into the log book."),
]


class Command(BaseCommand):
    help = "Fill the room Demo with messages of ada and grace, who cannot log in. Each call adds more."

    def add_arguments(self, parser):
        parser.add_argument("--messages", type=int, default=200, help="how many (default: %(default)s)")

    def handle(self, messages, **options):
        if messages < 0:
            raise CommandError("--messages must be 0 or more.")
        room, _ = Room.objects.get_or_create(slug="demo", defaults={"name": "Demo"})
        users = {name: get_user_model().objects.get_or_create(username=name)[0] for name, _ in LINES}
        for name, text in itertools.islice(itertools.cycle(LINES), messages):
            post_message(room.pk, users[name], uuid.uuid4(), text)
        self.stdout.write(f"{messages} messages in {room.get_absolute_url()}")
