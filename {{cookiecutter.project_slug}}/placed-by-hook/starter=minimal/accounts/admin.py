from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from .limits import limit_guesses
from .models import User

admin.site.register(User, UserAdmin)
# These check passwords.
admin.site.login = limit_guesses(admin.site.login, lambda request: request.POST.get("username", ""))
admin.site.password_change = limit_guesses(admin.site.password_change, lambda request: request.user.get_username())
