/**
 * Texts in the language of the page, by Django's catalogue, which the page loads before its modules.
 * https://docs.djangoproject.com/en/stable/topics/i18n/translation/#internationalization-in-javascript-code
 */
const { django } = globalThis;

/** @param {string} text */
export const gettext = (text) => django?.gettext?.(text) ?? text;

/** The text for `count`, in whose place of "%s" it stands. */
export const ngettext = (one, many, count) =>
  (django?.ngettext?.(one, many, count) ?? (count === 1 ? one : many)).replace("%s", count);

/** `text` with `values` in the places of its "%s", in their order. */
export const format = (text, ...values) => text.replace(/%s/g, () => String(values.shift()));
