/** Lists of names in messages. */

/** Returns a list of names for a message, limited to `most` names. */
export const listNames = (names: string[], most = 5): string =>
  `${names.slice(0, most).join(', ')}${names.length > most ? ` and ${names.length - most} more` : ''}`;
