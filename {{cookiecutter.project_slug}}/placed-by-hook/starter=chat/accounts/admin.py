from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from .limits import limit_guesses
from .models import User

admin.site.register(User, UserAdmin)
# These check passwords, too.
admin.site.login = limit_guesses(admin.site.login)
admin.site.password_change = limit_guesses(admin.site.password_change)
