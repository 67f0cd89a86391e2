"""Static files in production."""

from servestatic.storage import CompressedManifestStaticFilesStorage


class HashedStaticFilesStorage(CompressedManifestStaticFilesStorage):
    """
    Puts a hash into each name, so that browsers may cache for ever and still see a deploy at once.

    The files that scripts import get one, too, which Django leaves off by default:
    https://docs.djangoproject.com/en/stable/ref/contrib/staticfiles/#manifeststaticfilesstorage
    """

    support_js_module_import_aggregation = True
