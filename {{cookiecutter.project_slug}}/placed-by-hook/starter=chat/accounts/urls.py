"""The URLs have the names of django.contrib.auth.urls, to which Django and other packages refer."""

from django.conf import settings
from django.contrib.auth import views as auth_views
from django.urls import path
from django.utils.translation import gettext_lazy as _

from .forms import ResetForm
from .limits import limit_guesses, limit_mails, limit_sign_ups
from .views import EmailView, LogInView, SignUpView

change_password = auth_views.PasswordChangeView.as_view(template_name="accounts/password_change.html")
password_changed = auth_views.PasswordChangeDoneView.as_view(template_name="accounts/password_change_done.html")

# The four pages of a password reset, with the title that Django gives each of them.
reset_page = "accounts/password_reset.html"
ask = auth_views.PasswordResetView.as_view(
    form_class=ResetForm,
    template_name=reset_page,
    # Or else Django's mail calls the site by its host.
    extra_email_context={"site_name": settings.SITE_NAME},
    extra_context={"text": _("We send a link to your mail address, if you have given us one."), "button": _("Send")},
)
asked = auth_views.PasswordResetDoneView.as_view(
    template_name=reset_page,
    extra_context={"text": _("If there is an account with this address, the mail is on its way. Look for spam, too.")},
)
confirm = auth_views.PasswordResetConfirmView.as_view(
    template_name=reset_page,
    extra_context={"button": _("Change the password")},
)
complete = auth_views.PasswordResetCompleteView.as_view(
    template_name=reset_page,
    extra_context={"text": _("Your password is changed, and you are logged out everywhere.")},
)

urlpatterns = [
    path("signup/", limit_sign_ups(SignUpView.as_view()), name="signup"),
    path("login/", limit_guesses(LogInView.as_view()), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("password_change/", limit_guesses(change_password), name="password_change"),
    path("password_change/done/", password_changed, name="password_change_done"),
]
if settings.ACCOUNTS_PASSWORD_RESET:
    urlpatterns += [
        path("email/", limit_guesses(EmailView.as_view()), name="email_change"),
        path("password_reset/", limit_mails(ask), name="password_reset"),
        path("password_reset/done/", asked, name="password_reset_done"),
        path("reset/<uidb64>/<token>/", confirm, name="password_reset_confirm"),
        path("reset/done/", complete, name="password_reset_complete"),
    ]
