"""Static files in production."""

from servestatic.storage import CompressedManifestStaticFilesStorage


class HashedStaticFilesStorage(CompressedManifestStaticFilesStorage):
    """
    Puts a hash into each name, so that browsers may cache for ever and still see a deploy at once.

    The files that scripts import get one, too, which Django leaves off by default:
    https://docs.djangoproject.com/en/stable/ref/contrib/staticfiles/#manifeststaticfilesstorage
    """

    support_js_module_import_aggregation = True

    def stored_name(self, name):
        try:
            return super().stored_name(name)
        except ValueError as error:
            # With debug on the command copies the files, and leaves their list out.
            remedy = "Run `manage.py collectstatic` with DJANGO_DEBUG=false, and start the server again."
            raise ValueError(f"{error}. {remedy}") from None

    def url_converter(self, *arguments, **options):
        convert = super().url_converter(*arguments, **options)

        def convert_code(match):
            # A type in a comment, such as import("../types").Name, may name a file that is not there.
            line = match.string[: match.start()].rpartition("\n")[2]
            is_comment = line.lstrip().startswith(("* ", "//")) or line.rfind("/*") > line.rfind("*/")
            return match["matched"] if is_comment and match["matched"].startswith("import(") else convert(match)

        return convert_code
