from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html

from .models import Ban, Membership, Message, Room, count_edit

# Without lists of all rooms or users to choose from, and without counting all rows: there may be many.


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):
    list_display = ["name", "slug", "is_open", "owner", "messages"]
    list_filter = ["is_open"]
    list_select_related = ["owner"]
    show_full_result_count = False
    search_fields = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}
    autocomplete_fields = ["owner"]

    def messages(self, room):
        url = reverse("admin:chat_message_changelist", query={"room__id__exact": room.pk})
        return format_html('<a href="{}">{}</a>', url, room.last_seq)


@admin.register(Membership, Ban)
class MembershipAdmin(admin.ModelAdmin):
    list_display = ["room", "user"]
    list_select_related = ["room", "user"]
    show_full_result_count = False
    search_fields = ["room__slug", "user__username"]
    autocomplete_fields = ["room", "user"]


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ["room", "seq", "user", "text", "sent_at"]
    list_select_related = ["room", "user"]
    show_full_result_count = False
    search_fields = ["=room__slug", "text"]
    # As the index has them.
    ordering = ["-room_id", "-seq"]
    readonly_fields = ["id", "room", "seq", "user", "sent_at"]

    def save_model(self, request, obj, form, change):
        super().save_model(request, obj, form, change)
        # Pages that show the old text start anew.
        count_edit(obj)

    def has_add_permission(self, request):
        # Only post_message() numbers messages.
        return False

    def has_delete_permission(self, request, obj=None):
        """Messages are not deleted one by one, since numbers have no gap: empty the text. They go with their room."""
        return "chat_room" in request.resolver_match.url_name
