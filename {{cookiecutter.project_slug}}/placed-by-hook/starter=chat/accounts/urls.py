"""The URLs have the names of django.contrib.auth.urls, to which Django and other packages refer."""

from django.contrib.auth import views as auth_views
from django.urls import path

from .limits import limit_guesses, limit_sign_ups
from .views import SignUpView

log_in = auth_views.LoginView.as_view(template_name="accounts/login.html", redirect_authenticated_user=True)
change_password = auth_views.PasswordChangeView.as_view(template_name="accounts/password_change.html")
password_changed = auth_views.PasswordChangeDoneView.as_view(template_name="accounts/password_change_done.html")

urlpatterns = [
    path("signup/", limit_sign_ups(SignUpView.as_view()), name="signup"),
    path("login/", limit_guesses(log_in), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("password_change/", limit_guesses(change_password), name="password_change"),
    path("password_change/done/", password_changed, name="password_change_done"),
]
