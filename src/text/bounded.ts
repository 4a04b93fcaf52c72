/** Limits of texts from elsewhere, before anything else looks at them. */

/** A character of a word: what tokens, keys and names consist of. */
const wordCharacter = /[A-Za-z0-9_.+/=-]/;

/**
 * Returns at most the first `longest` UTF-16 code units of a text. If that cuts a word, the part of the word that is left is dropped
 * too: a part of a token is not recognized as one, so it would not be redacted. A text that is one long word becomes empty.
 */
export function head(text: string, longest: number): string {
  if (text.length <= longest) return text;
  let end = longest;
  while (end > 0 && wordCharacter.test(text.charAt(end - 1))) end -= 1;
  return text.slice(0, end).toWellFormed();
}

/** Returns a text of at most `longest` UTF-16 code units: a longer one is cut and ends in `…`. */
export const cut = (text: string, longest: number): string =>
  text.length <= longest ? text : `${text.slice(0, longest - 1).toWellFormed()}…`;

/** Replaces each control and invisible character, line breaks too, with a space: a terminal or an Event must not act on foreign text. */
export const printable = (text: string): string => text.toWellFormed().replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, ' ');
