from django.contrib import admin

from .models import Membership, Message, Room


class MembershipInline(admin.TabularInline):
    model = Membership
    autocomplete_fields = ["user"]
    extra = 1


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):
    list_display = ["name", "slug", "is_open", "last_seq"]
    list_filter = ["is_open"]
    search_fields = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}
    inlines = [MembershipInline]


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ["room", "seq", "user", "text", "sent_at"]
    list_filter = ["room"]
    list_select_related = ["room", "user"]
    search_fields = ["text"]
    ordering = ["-sent_at"]
    readonly_fields = ["id", "room", "seq", "user", "sent_at"]

    def has_add_permission(self, request):
        # The room would have to number it.
        return False

    def has_delete_permission(self, request, obj=None):
        """Not one by one, since numbers have no gap: empty the text instead. With the room they go."""
        return "chat_room" in request.resolver_match.url_name
